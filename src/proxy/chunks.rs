//! The chunked coding of a request, read strictly (RFC 9112 §7.1).
//!
//! Extensions and trailer fields are taken off on the way, so that what follows sees sizes and data alone.

use bytes::BufMut;

/// What is wrong with a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedChunk(pub &'static str);

/// More than anyone needs of what nobody uses.
const ASIDE_MAX: usize = 8 * 1024;

/// Where in the coding the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastLf,
    Done,
}

/// Reads one chunked body, however it is cut into pieces.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    digits: u8,
    left: u64,
    last: bool,
    colon: bool,
    aside: usize,
    content: u64,
    /// Whether the content alone is put out.
    bare: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size, digits: 0, left: 0, last: false, colon: false, aside: 0, content: 0, bare: false }
    }
}

impl Decoder {
    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The same, which puts out the content alone.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { bare: true, ..self }
    }

    /// How many bytes of content it has taken so far.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Takes from `input`, puts the same body without extensions and trailers into `room` bytes of `out`; says how
    /// many bytes of `input` it took.
    pub fn decode(&mut self, input: &[u8], out: &mut impl BufMut, mut room: usize) -> Result<usize, MalformedChunk> {
        let mut at = 0;
        // Two bytes are the most that one step but `Data` puts.
        while at < input.len() && room >= 2 && self.state != State::Done {
            let byte = input[at];
            match self.state {
                State::Size => match (byte, char::from(byte).to_digit(16)) {
                    (_, Some(digit)) => {
                        self.digits += 1;
                        self.left = self.left << 4 | u64::from(digit);
                        if self.digits > 16 || self.left > i64::MAX as u64 {
                            return Err(MalformedChunk("a chunk is larger than any content can be"));
                        }
                        room -= self.frame(&[byte], out);
                    }
                    (b';', _) if self.digits > 0 => self.state = State::Extension,
                    (b'\r', _) if self.digits > 0 => self.state = State::SizeEnd,
                    _ => return Err(MalformedChunk("the size of a chunk is not a hexadecimal number")),
                },
                State::Extension => match byte {
                    b'\r' => self.state = State::SizeEnd,
                    b'\t' | 0x20..=0x7e => self.set_aside()?,
                    _ => return Err(MalformedChunk("a chunk extension has a control character or one that is not ASCII")),
                },
                State::SizeEnd => {
                    line_feed(byte)?;
                    room -= self.frame(b"\r\n", out);
                    self.last = self.left == 0;
                    self.state = if self.last { State::TrailerStart } else { State::Data };
                }
                State::Data => {
                    let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - at).min(room);
                    out.put_slice(&input[at..at + take]);
                    room -= take;
                    at += take;
                    self.left -= take as u64;
                    self.content += take as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    continue;
                }
                State::DataCr => {
                    if byte != b'\r' {
                        return Err(MalformedChunk("a chunk is longer than its size"));
                    }
                    self.state = State::DataLf;
                }
                State::DataLf => {
                    line_feed(byte)?;
                    room -= self.frame(b"\r\n", out);
                    self.digits = 0;
                    self.state = State::Size;
                }
                State::TrailerStart => {
                    self.colon = false;
                    self.state = match byte {
                        b'\r' => State::LastLf,
                        _ if super::wire::is_token_byte(byte) => State::Trailer,
                        _ => return Err(MalformedChunk("a trailer field has no name")),
                    };
                    self.set_aside()?;
                }
                State::Trailer => match byte {
                    b'\r' if self.colon => self.state = State::TrailerEnd,
                    b':' => {
                        self.colon = true;
                        self.set_aside()?;
                    }
                    _ if self.colon && matches!(byte, b'\t' | 0x20..=0x7e) => self.set_aside()?,
                    _ if super::wire::is_token_byte(byte) => self.set_aside()?,
                    _ => return Err(MalformedChunk("a trailer field is malformed")),
                },
                State::TrailerEnd => {
                    line_feed(byte)?;
                    self.state = State::TrailerStart;
                }
                State::LastLf => {
                    line_feed(byte)?;
                    room -= self.frame(b"\r\n", out);
                    self.state = State::Done;
                }
                State::Done => {}
            }
            at += 1;
        }
        Ok(at)
    }

    /// Puts out what frames the content, unless it is put out alone; says how much that was.
    fn frame(&self, bytes: &[u8], out: &mut impl BufMut) -> usize {
        if self.bare {
            return 0;
        }
        out.put_slice(bytes);
        bytes.len()
    }

    fn set_aside(&mut self) -> Result<(), MalformedChunk> {
        self.aside += 1;
        if self.aside > ASIDE_MAX { Err(MalformedChunk("too many chunk extensions or trailer fields")) } else { Ok(()) }
    }
}

fn line_feed(byte: u8) -> Result<(), MalformedChunk> {
    if byte == b'\n' { Ok(()) } else { Err(MalformedChunk("a carriage return is not followed by a line feed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, bool, usize), MalformedChunk> {
        let (mut decoder, mut out, mut taken) = (Decoder::default(), Vec::new(), 0);
        while taken < input.len() && !decoder.is_done() {
            taken += decoder.decode(&input[taken..input.len().min(taken + step)], &mut out, 3)?;
        }
        Ok((out, decoder.is_done(), taken))
    }

    #[test]
    fn a_body_comes_out_the_same_however_it_is_cut() {
        let input = b"3\r\nabc\r\n1F\r\n0123456789012345678901234567890\r\n0\r\n\r\nGET";
        for step in 1..input.len() {
            let (out, done, taken) = decode(input, step).unwrap();
            assert_eq!((&out[..], done, taken), (&input[..input.len() - 3], true, input.len() - 3), "{step}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_taken_off() {
        let (out, done, _) = decode(b"2;a=\"b\"\r\nhi\r\n0;x\r\nAuthorization: Basic x\r\nX-SigmaMD-Client-Id: y\r\n\r\n", 4).unwrap();
        assert_eq!((&out[..], done), (&b"2\r\nhi\r\n0\r\n\r\n"[..], true));
    }

    #[test]
    fn what_parsers_read_differently_is_refused() {
        for wrong in [
            "+2\r\nhi\r\n",
            "-2\r\n",
            "0x2\r\nhi\r\n",
            " 2\r\nhi\r\n",
            "2 \r\nhi\r\n",
            "2\nhi\r\n",
            "\r\n",
            ";a\r\n",
            "8000000000000000\r\n",
            "00000000000000001\r\n",
            "2;a\nb\r\nhi\r\n",
            "2;a\rb\r\nhi\r\n",
            "2\r\nhi!\r\n",
            "2\r\nhi\n",
            "2\r\nhi\r!",
            "0\r\n X: y\r\n",
            "0\r\nX y\r\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\n\n",
            "0\r\nNoColon\r\n\r\n",
        ] {
            for step in [1, 2, 100] {
                assert!(decode(wrong.as_bytes(), step).is_err(), "{wrong:?} {step}");
            }
        }
    }
}
