//! The `Date` of answers (RFC 9110 §6.6.1), made once a second.

use std::cell::RefCell;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::clock;

const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

thread_local! {
    static LAST: RefCell<(i64, Vec<u8>)> = const { RefCell::new((i64::MIN, Vec::new())) };
}

/// Calls `f` with the date of this second.
pub fn with<T>(f: impl FnOnce(&[u8]) -> T) -> T {
    let second = clock::now().0.div_euclid(1000);
    LAST.with_borrow_mut(|(of, text)| {
        if *of != second {
            text.clear();
            // Every moment that the clock can tell has a date.
            if let Ok(moment) = OffsetDateTime::from_unix_timestamp(second) {
                let _ = moment.format_into(text, FORMAT);
            }
            *of = second;
        }
        f(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_http() {
        with(|date| {
            let text = std::str::from_utf8(date).unwrap();
            let moment = time::PrimitiveDateTime::parse(text, FORMAT).unwrap().assume_utc();
            let now = OffsetDateTime::now_utc();
            assert!((now - moment).whole_minutes() < 60 && moment <= now, "{text}");
            assert_eq!((text.len(), &text[26..]), (29, "GMT"));
        });
    }
}
