//! The answer of an HTTP/1.1 upstream: its header, read strictly, and how its content is framed (RFC 9112 §6).

use std::mem::MaybeUninit;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora::{Error, ErrorType, Result};

use super::chunks::Decoder;
use super::head::put;
use super::wire;

/// The longest header.
const HEADER_MAX: usize = 64 * 1024;
/// The most fields.
const FIELDS_MAX: usize = 200;

/// How the content ends.
#[derive(Debug)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked(Decoder),
    /// With the connection.
    Close,
}

/// The header that the client is told, in the making.
#[derive(Debug)]
pub enum Told {
    /// Of HTTP/1.1: bytes, without the line that ends it.
    Http1(Vec<u8>),
    /// Of HTTP/2.
    Http2(StatusCode, HeaderMap),
}

/// Names that most answers have: looked up here, they cost a fifth.
static OFTEN: [HeaderName; 14] = [
    header::SERVER,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::DATE,
    HeaderName::from_static("x-request-id"),
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
    header::VARY,
    header::ACCEPT_RANGES,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    header::STRICT_TRANSPORT_SECURITY,
    header::CONTENT_ENCODING,
];

impl Told {
    /// Nothing yet, for a client of HTTP/2.
    pub fn http2() -> Self {
        Self::Http2(StatusCode::OK, HeaderMap::with_capacity(16))
    }

    fn begin(&mut self, status: u16, reason: &str) -> Result<()> {
        match self {
            Self::Http1(out) => {
                out.extend_from_slice(b"HTTP/1.1 ");
                out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
                out.push(b' ');
                out.extend_from_slice(reason.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Self::Http2(told, _) => *told = StatusCode::from_u16(status).map_err(|_| wrong("the status of the answer is none"))?,
        }
        Ok(())
    }

    /// Puts one field.
    ///
    /// # Errors
    /// It cannot stand in a header.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        self.put(name, value, true)
    }

    /// Puts a field that says something else in each answer, which the next one gains nothing by.
    ///
    /// # Errors
    /// It cannot stand in a header.
    pub fn once(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        self.put(name, value, false)
    }

    fn put(&mut self, name: &[u8], value: &[u8], again: bool) -> Result<()> {
        match self {
            Self::Http1(out) => put(out, name, value),
            Self::Http2(_, fields) => {
                let known = OFTEN.iter().find(|known| known.as_str().len() == name.len() && name.eq_ignore_ascii_case(known.as_ref()));
                let name = known.cloned().map_or_else(|| HeaderName::from_bytes(name), Ok);
                let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_bytes(value)) else {
                    return Err(wrong("a field of the answer cannot stand in HTTP/2"));
                };
                // Else it would drive what is worth keeping out of the table of those that were said (RFC 7541 §6.2.3).
                value.set_sensitive(!again);
                fields.try_append(name, value).map_err(|_| wrong("the answer has too many fields"))?;
            }
        }
        Ok(())
    }

    fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(..))
    }
}

/// The header of a final answer, made into one for the client but for the fields that the gateway adds.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub framing: Framing,
    /// Whether the connection can be used again once the content is complete.
    pub reusable: bool,
    /// Whether the upstream has said when it answered.
    pub dated: bool,
}

/// What reading has come to.
#[derive(Debug)]
pub enum Read {
    /// There is more to come.
    Partial,
    /// The header is complete, and put into the client's.
    Final(Answer),
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed everywhere")]
fn wrong(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}

/// Takes a header from the beginning of `input`, if it is all there, and puts what the client is told of it into `told`. Interim
/// answers are passed over: nobody asked for one.
///
/// # Errors
/// It is not an answer, or one that two readers could read in two ways; `head_only` says whether the request was HEAD.
pub fn read(input: &mut BytesMut, head_only: bool, told: &mut Told) -> Result<Read> {
    loop {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut []);
        let mut parser = httparse::ParserConfig::default();
        // Such blanks are to be taken off, not to be refused (RFC 9112 §5.1).
        parser.allow_spaces_after_header_name_in_responses(true);
        let end = match parser.parse_response_with_uninit_headers(&mut head, input, &mut fields) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) if input.len() <= HEADER_MAX => return Ok(Read::Partial),
            Ok(httparse::Status::Partial) => return Err(wrong("the header of the answer is too long")),
            Err(_) => return Err(wrong("the header of the answer cannot be read")),
        };
        let status = head.code.unwrap_or_default();
        if status == 101 {
            // Nobody asked for it: what follows would be bytes that no check has seen.
            return Err(wrong("101 without an upgrade"));
        }
        if status < 100 {
            return Err(wrong("the status of the answer is none"));
        }
        if status < 200 {
            drop(input.split_to(end));
            continue;
        }
        let answer = take(&head, status, head_only, told)?;
        drop(input.split_to(end));
        return Ok(Read::Final(answer));
    }
}

fn take(head: &httparse::Response<'_, '_>, status: u16, head_only: bool, told: &mut Told) -> Result<Answer> {
    let (mut length, mut chunked, mut dated) = (None, false, false);
    let (mut close, mut keep_alive) = (false, false);
    let mut nominated: Vec<&[u8]> = Vec::new();
    for field in &*head.headers {
        let name = field.name.as_bytes();
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"date") => dated = true,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for token in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    close |= token.eq_ignore_ascii_case(b"close");
                    keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    nominated.push(token);
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                for value in field.value.split(|byte| *byte == b',') {
                    let stated = wire::content_length(value.trim_ascii()).map_err(|_| wrong("the length of the answer is not a number"))?;
                    if length.replace(stated).is_some_and(|other| other != stated) {
                        return Err(wrong("the answer has two lengths"));
                    }
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if chunked || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(wrong("the transfer coding of the answer is not chunked, or not that alone"));
                }
                chunked = true;
            }
            _ => {}
        }
    }
    let framing = match (status, length) {
        _ if head_only => Framing::Length(0),
        (204 | 304, _) => Framing::Length(0),
        _ if chunked && told.is_http2() => Framing::Chunked(Decoder::default().bare()),
        _ if chunked => Framing::Chunked(Decoder::default()),
        (_, Some(length)) => Framing::Length(length),
        _ => Framing::Close,
    };
    let current = head.version == Some(1);
    // Beside a coding a length means nothing, and whoever sends both may have been led to (RFC 9112 §6.3).
    let unclear = matches!(framing, Framing::Close) || (chunked && length.is_some());
    let reusable = !unclear && !close && (current || keep_alive);

    told.begin(status, head.reason.unwrap_or_default())?;
    for field in &*head.headers {
        let name = field.name.as_bytes();
        let ours = is_ours(name) || (chunked && name.eq_ignore_ascii_case(b"content-length"));
        if !ours && !nominated.iter().any(|token| token.eq_ignore_ascii_case(name) && !is_end_to_end(name)) {
            told.field(name, field.value)?;
        }
    }
    if !told.is_http2() && (chunked || matches!(framing, Framing::Close)) {
        told.field(b"Transfer-Encoding", b"chunked")?;
    }
    Ok(Answer { status, framing, reusable, dated })
}

/// Whether a field is between two neighbours, or said by the gateway.
fn is_ours(name: &[u8]) -> bool {
    // The length tells nearly every other field apart at the price of one comparison.
    let ours: &[&[u8]] = match name.len() {
        2 => &[b"te"],
        7 => &[b"trailer", b"upgrade"],
        10 => &[b"connection", b"keep-alive"],
        12 => &[b"x-request-id"],
        16 => &[b"proxy-connection"],
        17 => &[b"transfer-encoding"],
        _ => return false,
    };
    ours.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// Whether `Connection` cannot take a field away: the content could not be read without it.
fn is_end_to_end(name: &[u8]) -> bool {
    name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"))
}

impl Framing {
    /// Whether the content is complete.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(decoder) => decoder.is_done(),
            Self::Close => false,
        }
    }

    /// Moves what is there of the content to `out`, framed for a client of HTTP/1.1 unless it is to be `bare`; says how many bytes of
    /// it are content.
    ///
    /// # Errors
    /// It is not framed as it says.
    pub fn carry(&mut self, input: &mut BytesMut, out: &mut Vec<u8>, bare: bool) -> Result<u64> {
        match self {
            Self::Length(left) => {
                let n = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&input.split_to(n));
                *left -= n as u64;
                Ok(n as u64)
            }
            Self::Chunked(decoder) => {
                let before = decoder.content();
                let room = usize::MAX;
                let taken = decoder
                    .decode(input, out, room)
                    .map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "a chunk of the answer", error).into_up())?;
                drop(input.split_to(taken));
                Ok(decoder.content() - before)
            }
            Self::Close => {
                let piece: Bytes = input.split().freeze();
                if bare {
                    out.put_slice(&piece);
                } else if !piece.is_empty() {
                    // Writing into memory does not fail.
                    let _ = std::io::Write::write_fmt(&mut *out, format_args!("{:x}\r\n", piece.len()));
                    out.put_slice(&piece);
                    out.put_slice(b"\r\n");
                }
                Ok(piece.len() as u64)
            }
        }
    }

    /// What the client is told when the upstream has closed the connection.
    ///
    /// # Errors
    /// It was not the end.
    pub fn closed(&mut self, out: &mut Vec<u8>, bare: bool) -> Result<()> {
        if !matches!(self, Self::Close) {
            return Err(Error::explain(ErrorType::ConnectionClosed, "in the middle of the answer").into_up());
        }
        if !bare {
            out.put_slice(b"0\r\n\r\n");
        }
        *self = Self::Length(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pingora::http::RequestHeader;
    use pingora::protocols::http::v1::client::HttpSession;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::super::bare::Bare;
    use super::*;

    /// The header for the client, the content for the client, and whether the connection can be used again; read in pieces of
    /// `step` bytes.
    fn relayed(answer: &[u8], head_only: bool, step: usize) -> Result<(String, Vec<u8>, bool), ()> {
        let (mut input, mut told) = (BytesMut::new(), Told::Http1(Vec::new()));
        let mut rest = answer.chunks(step);
        let head = loop {
            if let Read::Final(head) = read(&mut input, head_only, &mut told).map_err(|_| ())? {
                break head;
            }
            input.extend_from_slice(rest.next().ok_or(())?);
        };
        let Told::Http1(header) = told else { unreachable!("it was that") };
        let (mut framing, header, mut out) = (head.framing, String::from_utf8_lossy(&header).into_owned(), Vec::new());
        while !framing.is_done() {
            framing.carry(&mut input, &mut out, false).map_err(|_| ())?;
            if framing.is_done() {
                break;
            }
            match rest.next() {
                Some(more) => input.extend_from_slice(more),
                None => framing.closed(&mut out, false).map_err(|_| ())?,
            }
        }
        let clean = input.is_empty() && rest.next().is_none();
        Ok((header, out, head.reusable && clean))
    }

    fn text((header, content, reusable): (String, Vec<u8>, bool)) -> (String, String, bool) {
        (header, String::from_utf8(content).unwrap(), reusable)
    }

    #[test]
    fn an_answer_is_handed_on_with_the_framing_of_ours() {
        for step in [1, 3, 1000] {
            let of = |answer: &str| text(relayed(answer.as_bytes(), false, step).unwrap());
            assert_eq!(
                of("HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello"),
                ("HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 5\r\n".into(), "hello".into(), true)
            );
            assert_eq!(
                of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Trailer: z\r\n\r\n"),
                ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n".into(), "5\r\nhello\r\n0\r\n\r\n".into(), true)
            );
            let (header, content, reusable) = of("HTTP/1.0 200 OK\r\n\r\nhello");
            assert_eq!((&*header, reusable), ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", false));
            assert!(content.ends_with("\r\n0\r\n\r\n"), "{content}");
            for interim in
                ["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"]
            {
                let answer = format!("{interim}HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
                assert_eq!(of(&answer), ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n".into(), String::new(), true));
            }
            // What belongs to nobody is not handed on, and nothing goes over that connection any more.
            assert!(!of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n").2);
            assert_eq!(of("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n").1, "");
            assert_eq!(relayed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true, step).unwrap().1, b"");
        }
    }

    #[test]
    fn what_is_between_two_neighbours_stays_there() {
        let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Mine, Content-Length\r\nX-Mine: a\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
                      Trailer: x\r\nX-Request-Id: theirs\r\nContent-Length : 0\r\nX-Kept: b\r\n\r\n";
        let (header, _, reusable) = relayed(answer.as_bytes(), false, 1000).unwrap();
        assert_eq!((&*header, reusable), ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Kept: b\r\n", true));
        for (line, reusable) in [("Connection: close", false), ("Connection: Close, x", false), ("X: y", true)] {
            assert_eq!(
                relayed(format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 0\r\n\r\n").as_bytes(), false, 1000).unwrap().2,
                reusable
            );
        }
        for (line, reusable) in [("X: y", false), ("Connection: keep-alive", true)] {
            assert_eq!(
                relayed(format!("HTTP/1.0 200 OK\r\n{line}\r\nContent-Length: 0\r\n\r\n").as_bytes(), false, 1000).unwrap().2,
                reusable
            );
        }
        // A length beside a coding means nothing, and the connection is not trusted with another request.
        let both = relayed(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, 1000).unwrap();
        assert_eq!(text(both), ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n".into(), "0\r\n\r\n".into(), false));
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_no_answer() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd",
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 099 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nContent-Len",
        ] {
            assert!(relayed(answer.as_bytes(), false, 1000).is_err(), "{answer:?}");
        }
        assert!(relayed(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(HEADER_MAX * 2)).as_bytes(), false, 1000).is_err());
    }

    /// What pingora reads of the same bytes, when the connection is closed behind them: the status, and the content.
    async fn by_pingora(answer: &[u8], head_only: bool) -> Option<(u16, Vec<u8>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = Bare::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut upstream, _) = listener.accept().await.unwrap();
        upstream.write_all(answer).await.unwrap();
        upstream.shutdown().await.unwrap();
        let mut session = HttpSession::new(Box::new(plain));
        let method = if head_only { "HEAD" } else { "GET" };
        let mut request = RequestHeader::build(method, b"/", None).unwrap();
        request.append_header("Host", "a").unwrap();
        session.write_request_header(Box::new(request)).await.ok()?;
        let status = loop {
            session.read_response().await.ok()?;
            let status = session.resp_header()?.status.as_u16();
            if status >= 200 || status == 101 {
                break status;
            }
        };
        let mut content = Vec::new();
        while let Some(piece) = session.read_body_bytes().await.ok()? {
            content.extend_from_slice(&piece);
        }
        Some((status, content))
    }

    /// What a client reads of what it is told: the status, and the content.
    fn by_client(header: &str, framed: &[u8]) -> (u16, Vec<u8>) {
        let header = format!("{header}\r\n");
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut read = httparse::Response::new(&mut fields);
        assert_eq!(read.parse(header.as_bytes()), Ok(httparse::Status::Complete(header.len())));
        let named = |name: &str| read.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).count();
        assert!(
            named("transfer-encoding") + named("content-length").min(1) <= 1 && named("connection") + named("upgrade") == 0,
            "{header}"
        );
        let mut content = Vec::new();
        if named("transfer-encoding") == 1 && !framed.is_empty() {
            assert_eq!(Decoder::default().bare().decode(framed, &mut content, usize::MAX), Ok(framed.len()));
        } else {
            content.extend_from_slice(framed);
        }
        (read.code.unwrap(), content)
    }

    fn answers() -> impl Strategy<Value = Vec<u8>> {
        let begin = prop::sample::select(vec![
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200",
            "HTTP/1.0 200 OK",
            "HTTP/1.1 204 No Content",
            "HTTP/1.1 304 Not Modified",
            "HTTP/1.1 404 Not there",
            "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No",
        ]);
        let field = prop::sample::select(vec![
            "Content-Length: 5",
            "Content-Length: 5",
            "content-length:5 ",
            "Content-Length: 0",
            "Content-Length: 05",
            "Content-Length: 5, 5",
            "Content-Length: 3",
            "Transfer-Encoding: chunked",
            "transfer-encoding:Chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding : chunked",
            "Connection: close",
            "Connection: keep-alive, X-Mine",
            "X-Mine: a",
            "Server: x",
            "Date: Fri, 27 Nov 2026 12:00:00 GMT",
            "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "Upgrade: h2c",
        ]);
        let content = prop::sample::select(vec![
            "",
            "hello",
            "hello and more",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;a=b\r\nhello\r\n3\r\n me\r\n0\r\nX: y\r\n\r\n",
            "0\r\n\r\n",
            "A\r\nhello",
            "5\nhello\n0\n\n",
        ]);
        let spoilt = prop::option::weighted(0.3, (any::<prop::sample::Index>(), prop::sample::select(b"\r\n\0 :;,a0\x7f\xff".to_vec())));
        (begin, prop::collection::vec(field, 0..5), content, spoilt).prop_map(|(begin, fields, content, spoilt)| {
            let mut answer = [&[begin], &fields[..], &["", content]].concat().join("\r\n").into_bytes();
            if let Some((at, byte)) = spoilt {
                let at = at.index(answer.len());
                answer[at] = byte;
            }
            answer
        })
    }

    proptest! {
        /// Read in whatever pieces, an answer is the same; and what is taken is taken by pingora, which reads the answers to
        /// requests with content, for the same, and by the client.
        #[test]
        fn what_is_taken_is_read_by_others_in_the_same_way(answer in answers(), head_only: bool, step in 1_usize..40) {
            let read = |step| relayed(&answer, head_only, step).map(|(header, framed, reusable)| (by_client(&header, &framed), reusable, header));
            let whole = read(100_000);
            prop_assert_eq!(&read(step), &whole);
            let Ok(((status, content), ..)) = whole else { return Ok(()) };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let other = runtime.block_on(by_pingora(&answer, head_only));
            let shown = |content: &[u8]| content.escape_ascii().to_string();
            prop_assert_eq!(
                other.map(|(status, content)| (status, shown(&content))),
                Some((status, shown(&content))),
                "{}",
                shown(&answer)
            );
        }
    }
}
