//! Ids of requests and traces.

use std::cell::Cell;

use http::HeaderValue;
use uuid::Builder;

use super::headers::Fields;
use crate::clock::{self, Timestamp};

thread_local! {
    // Unique, not secret: a seed from the system and a mixer cost nanoseconds, where asking the system costs a call each time.
    static STATE: Cell<[u64; 2]> = Cell::new(seed());
}

fn seed() -> [u64; 2] {
    let mut bytes = [[0; 8]; 2];
    for half in &mut bytes {
        // Without the system's randomness the clock must do; ids stay unique within a thread.
        if getrandom::fill(half).is_err() {
            *half = clock::boot_time().0.to_ne_bytes();
        }
    }
    bytes.map(u64::from_ne_bytes)
}

/// 128 bits that are the same again only by chance.
fn random() -> [u8; 16] {
    // SplitMix64 (Steele, Lea, Flood 2014), two of them with seeds of their own.
    let mix = |state: u64| {
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let state = STATE.get().map(|state| state.wrapping_add(0x9e37_79b9_7f4a_7c15));
    STATE.set(state);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(state[0]).to_ne_bytes());
    bytes[8..].copy_from_slice(&mix(state[1]).to_ne_bytes());
    bytes
}

/// The id of a request of this moment: the caller's if it is 1 to 64 letters, digits and `-`, else a new one.
pub fn request_id(fields: &impl Fields, at: Timestamp) -> HeaderValue {
    let mut values = fields.values("x-request-id");
    if let Some(value) = values.next()
        && values.next().is_none()
        && (1..=64).contains(&value.len())
        && value.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && let Ok(value) = HeaderValue::from_bytes(value)
    {
        return value;
    }
    new_request_id(at)
}

/// A new UUID of version 7, of this moment.
pub fn new_request_id(at: Timestamp) -> HeaderValue {
    let millis = u64::try_from(at.0).unwrap_or_default();
    let random: [u8; 10] = std::array::from_fn({
        let bytes = random();
        move |at| bytes[at]
    });
    let id = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut text = [0; 36];
    id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("none"))
}

/// A new `traceparent` (W3C Trace Context), not sampled: whoever traces decides that.
pub fn traceparent() -> [u8; 55] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let mut hex = |at: usize, bytes: &[u8]| {
        for (two, byte) in text[at..].chunks_exact_mut(2).zip(bytes) {
            two.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    };
    let (mut trace, mut parent) = (random(), random());
    // An id of all zeros would be invalid, so one bit is always set.
    trace[15] |= 1;
    parent[7] |= 1;
    hex(3, &trace);
    hex(36, &parent[..8]);
    text
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_harmless_id_is_kept_and_others_are_replaced() {
        let id = |text: &'static str| {
            let headers = http::HeaderMap::from_iter([(super::super::REQUEST_ID, HeaderValue::from_static(text))]);
            request_id(&headers, Timestamp(0)).to_str().unwrap().to_owned()
        };
        assert_eq!(id("abc-DEF-123"), "abc-DEF-123");
        for wrong in ["", "a b", "a_b", "a\tb", "<script>", "12345678901234567890123456789012345678901234567890123456789012345"] {
            let new = id(wrong);
            assert_eq!(Uuid::parse_str(&new).unwrap().get_version_num(), 7, "{wrong}");
        }
        assert_ne!(new_request_id(Timestamp(0)), new_request_id(Timestamp(0)));
    }

    #[test]
    fn a_new_traceparent_is_valid() {
        let (one, other) = (traceparent(), traceparent());
        assert!(super::super::headers::is_traceparent(&one));
        assert!(one[3..35] != other[3..35] && one[36..52] != other[36..52]);
    }
}
