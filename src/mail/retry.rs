//! When a mail is tried again.

use std::time::Duration;

use crate::clock::Timestamp;

/// After the first try; from then on twice as long each time.
const FIRST: Duration = Duration::from_secs(60);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);
/// For how long a mail is tried. By then nobody is helped by it.
pub(super) const PATIENCE: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// When a mail of `created_at` is due again whose try at `now`, the last of `attempts`, has failed; `None`: it is given up.
/// `part` of the whole, from 0 to 1, is by how much the pause is shortened, up to a quarter: what failed together is not to
/// come back together.
pub(super) fn again_at(created_at: Timestamp, now: Timestamp, attempts: u32, part: f64) -> Option<Timestamp> {
    let last = created_at.after(PATIENCE);
    if now >= last {
        return None;
    }
    let pause = FIRST.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1))).min(LONGEST);
    // The last try is at the end, so that none is cut off that a shorter pause would have got.
    Some(now.after(pause.mul_f64(1.0 - part.clamp(0.0, 1.0) / 4.0)).min(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_700_000_000_000);

    #[test]
    fn the_pause_doubles_up_to_six_hours_and_is_shortened_by_a_quarter_at_most() {
        for (attempts, seconds) in [(1, 60), (2, 120), (3, 240), (9, 15_360), (10, 21_600), (32, 21_600), (33, 21_600), (u32::MAX, 21_600)]
        {
            let pause = |part| again_at(START, START, attempts, part).unwrap().0 - START.0;
            assert_eq!((pause(0.0), pause(1.0), pause(0.5)), (seconds * 1000, seconds * 750, seconds * 875), "{attempts}");
        }
    }

    #[test]
    fn a_mail_is_tried_for_three_days_and_a_last_time_at_their_end() {
        let (mut now, mut tries) = (START, 1);
        while let Some(again) = again_at(START, now, tries, 0.0) {
            assert!(again > now);
            (now, tries) = (again, tries + 1);
        }
        assert_eq!((now, tries), (START.after(PATIENCE), 21));
        assert_eq!(again_at(START, START.after(PATIENCE + FIRST), 1, 0.0), None, "even the first one, if it comes that late");
        assert!(again_at(START, Timestamp(0), 1, 0.0).is_some(), "by a clock that is behind");
    }
}
