//! Names that people give.

use super::Error;

/// The longest name, in characters.
const MAX: usize = 100;

/// The name without surrounding white space.
///
/// # Errors
/// [`Error::Invalid`] unless 1 to 100 characters are left, none of them a control character.
pub(super) fn check(name: &str) -> Result<&str, Error> {
    let name = name.trim();
    if name.is_empty() {
        return Err(Error::Invalid("the name is empty: give 1 to 100 characters".into()));
    }
    let length = name.chars().count();
    if length > MAX {
        return Err(Error::Invalid(format!("the name has {length} characters: give at most {MAX}")));
    }
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        return Err(Error::Invalid(format!("the name has the control character U+{:04X}: leave it out", u32::from(control))));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_of_up_to_a_hundred_characters() {
        assert_eq!(check("  Billing sync ").unwrap(), "Billing sync");
        assert!(check(&"é".repeat(100)).is_ok());
        for wrong in ["", "  ", "a\nb", "a\u{0}b", "\u{1b}[2J", &"a".repeat(101)] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
