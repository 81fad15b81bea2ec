//! What must hold for whatever bytes arrive. The fuzz targets look for bytes for which it does not; `tests/corpus.rs` holds
//! it against those that were found, on every run of the tests.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use sigmagate::authn::{self, Credential};
use sigmagate::config::{self, Sources};
use sigmagate::credential::Secret;
use sigmagate::id::RouteId;
use sigmagate::proxy::chunks::{Decoder, MalformedChunk};
use sigmagate::proxy::wire::{self, Framing, Limits, Marks};
use sigmagate::route::{Method, MethodSet, NotFound, PathPrefix, RequestTarget, Requirement, Route, RouteTable};
use sigmagate::scope::ScopeRegistry;
use sigmagate::token::{Algorithm, Compact, KeySet, verify};
use sigmagate::upstream::{Settings, Upstream};

/// One percent-decoding, as a service behind the gateway might do it.
fn decoded(path: &[u8]) -> Vec<u8> {
    let digit = |at: usize| path.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::new(), 0);
    while at < path.len() {
        match (path[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap());
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// There is one canonical target, and whoever decodes it sees the same segments.
pub fn request_target(data: &[u8]) {
    let Ok(target) = RequestTarget::parse(data) else { return };
    let canonical = target.as_str();
    let again = RequestTarget::parse(canonical.as_bytes()).expect("what is canonical can be read");
    assert_eq!((again.as_str(), again.rewritten()), (canonical, false));
    assert_eq!((again.path(), again.query(), again.has_parameters()), (target.path(), target.query(), target.has_parameters()));
    assert!(target.rewritten() || canonical.as_bytes() == data);
    let query = data.iter().position(|byte| *byte == b'?').map(|at| &data[at + 1..]);
    assert_eq!(target.query().map(str::as_bytes), query, "a query is passed on as it came");
    assert!(canonical.bytes().all(|byte| byte.is_ascii_graphic()) && !canonical.contains('#'));
    let segments = |path: &[u8]| path.split(|byte| *byte == b'/').count();
    let mut path = target.path().as_bytes().to_vec();
    assert_eq!(path.first(), Some(&b'/'));
    for _ in 0..3 {
        assert_eq!(segments(&path), segments(target.path().as_bytes()));
        // The last segment may be empty: a slash at the end is not the same as none.
        let inner = path.strip_suffix(b"/").unwrap_or(&path);
        assert!(inner.is_empty() || !inner[1..].split(|byte| *byte == b'/').any(|segment| matches!(segment, b"" | b"." | b"..")));
        assert!(!path.iter().any(|byte| *byte == b'\\' || byte.is_ascii_control()));
        path = decoded(&path);
    }
}

/// The longest prefix of whole segments wins, as a plain scan would find it. Lines are prefixes with a letter for the
/// methods, and the last one is a path.
pub fn route_table(data: &[u8]) {
    static UPSTREAM: LazyLock<Arc<Upstream>> = LazyLock::new(|| Arc::new(Upstream::new("core", Settings::default(), Vec::new())));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((prefixes, path)) = text.rsplit_once('\n') else { return };
    let Ok(target) = RequestTarget::parse(path.as_bytes()) else { return };
    let methods = |letter: u8| Method::EVERY.into_iter().enumerate().filter(move |(n, _)| letter & (1 << n) != 0).map(|(_, method)| method);
    let route = |(n, line): (usize, &str)| {
        let (letter, prefix) = line.split_at_checked(1)?;
        let methods: MethodSet = methods(letter.as_bytes()[0]).collect();
        let prefix: PathPrefix = prefix.parse().ok()?;
        (methods != MethodSet::from_iter([])).then(|| Route {
            id: RouteId(u32::try_from(n).unwrap()),
            prefix,
            methods,
            requirement: Requirement::Public,
            scopes: "".into(),
            upstream: Arc::clone(&UPSTREAM),
            allow_path_parameters: false,
            websocket: false,
            forward_authorization: false,
            body_limit_bytes: 0,
            stale_grace: Duration::ZERO,
        })
    };
    for ignore_case in [false, true] {
        let routes: Vec<Route> = prefixes.lines().take(64).enumerate().filter_map(route).collect();
        let Ok(table) = RouteTable::new(routes, ignore_case) else { continue };
        let folded = |text: &str| if ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        let path = folded(target.path());
        let covers = |prefix: &str| {
            let prefix = folded(prefix);
            let rest = path.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
        };
        let longest = table.routes().iter().filter_map(|route| covers(route.prefix.as_str())).max();
        for method in Method::EVERY {
            let at_longest = |route: &&Arc<Route>| longest.is_some() && covers(route.prefix.as_str()) == longest;
            let plain = table.routes().iter().filter(at_longest).find(|route| route.methods.has(method));
            match (table.find(target.path(), Some(method)), plain) {
                (Ok(found), Some(plain)) => assert_eq!(found.id, plain.id),
                (Err(NotFound::NoRoute), None) => assert!(longest.is_none()),
                (Err(NotFound::MethodNotAllowed(_)), None) => assert!(longest.is_some()),
                (found, plain) => panic!("{found:?} and {plain:?}"),
            }
        }
    }
}

/// What is read as a credential is what was written, and there is one way to write it.
pub fn credentials(data: &[u8]) {
    if let Ok(secret) = Secret::parse(data) {
        assert_eq!(secret.reveal().as_bytes(), data);
    }
    match authn::credential(Some(data)) {
        Ok(Credential::Basic(id, secret)) => {
            let written = STANDARD.encode(format!("{id}:{}", secret.reveal()));
            let shown = data.trim_ascii();
            assert_eq!(shown[5..].trim_ascii(), written.as_bytes(), "no two texts are one credential");
            let Ok(Credential::Basic(same, again)) = authn::credential(Some(format!("basic {written}").as_bytes())) else {
                panic!("{id} cannot be written")
            };
            assert!(same == id && again.digest(None).same(&secret.digest(None)));
        }
        Ok(Credential::Bearer(token)) => assert!(!token.is_empty() && token.iter().all(|byte| byte.is_ascii_graphic() && *byte != b',')),
        Err(_) => {}
    }
    if let Ok(query) = std::str::from_utf8(data) {
        let named = authn::credential_in_query(query);
        assert!(named || !query.split('&').any(|pair| pair.to_ascii_lowercase().starts_with("access_token=")));
    }
}

/// Nothing counts as signed but what was: the examples of RFC 7515 and RFC 8037, letter by letter.
pub fn tokens(data: &[u8]) {
    static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
        let set = include_bytes!("keys.json");
        let (keys, left_out) = KeySet::from_jwks(set).expect("a key set");
        assert!(keys.len() == 3 && left_out.is_empty());
        keys
    });
    let signed = |token: &[u8]| include_str!("signed.txt").lines().any(|known| known.as_bytes() == token);
    if let Ok(token) = Compact::parse(data) {
        let algorithms = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];
        for key in KEYS.iter() {
            let mut alone = KeySet::default();
            alone.add(key.clone()).expect("one key");
            if let Ok(verified) = verify(&token, &alone, &algorithms) {
                assert!(signed(data), "a forgery");
                let _ = (verified.of_type("at+jwt"), verified.of_type_if_any(&["JWT"]));
            }
        }
        let _ = (token.claimed("iss"), token.kid().map(str::len));
    } else {
        assert!(!signed(data));
    }
    if let Ok((keys, _)) = KeySet::from_jwks(data) {
        for key in keys.iter() {
            let written = format!("{{\"keys\":[{}]}}", key.to_jwk());
            let (again, left_out) = KeySet::from_jwks(written.as_bytes()).expect("what is written can be read");
            assert!(left_out.is_empty() && again.iter().next().is_some_and(|same| same.thumbprint() == key.thumbprint()));
        }
    }
}

/// Every mistake is told with its place, in printable text; a configuration without any can be looked over. The settings
/// and the route map are divided by a NUL.
pub fn configuration(data: &[u8]) {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (gateway, routes) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    // Each thread has its own, since tests run beside each other.
    let folder = FOLDER.path().join(format!("{:?}", std::thread::current().id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let sources = Sources { gateway: Some(folder.join("gateway.toml")), routes: folder.join("routes.toml") };
    let write = |path: &Path, text: &[u8]| std::fs::write(path, text).expect("a file");
    write(sources.gateway.as_deref().expect("named"), gateway);
    write(&sources.routes, routes);
    // To tell of it: no host is looked up, and no private key is read.
    match config::load_to_tell(&sources, [], &ScopeRegistry::default()) {
        Ok(config) => {
            for finding in config::check::check(&config) {
                assert!(!finding.to_string().contains(char::is_control), "{finding:?}");
            }
            assert!(!config.routes.table.routes().is_empty());
        }
        Err(mistakes) => {
            assert!(!mistakes.0.is_empty());
            for mistake in mistakes.0 {
                let text = mistake.to_string();
                assert!(!text.contains(char::is_control) && text.contains(".toml"), "{text:?}");
            }
        }
    }
}

/// What our own reading takes, another strict reader takes, and sees the same; and it does not matter in which pieces it came.
pub fn http1(data: &[u8]) {
    let limits = Limits { fields: 100, bytes: 65_536, target: 8192 };
    let whole = wire::find_end(data, &mut 0, &limits);
    let mut seen = 0;
    let pieces = (1..=data.len()).find_map(|n| wire::find_end(&data[..n], &mut seen, &limits).transpose());
    let end = match (whole, pieces) {
        (Ok(whole), None) => return assert!(whole.is_none()),
        (whole, Some(Ok(end))) => {
            assert!(whole.is_ok_and(|whole| whole == Some(end)));
            end
        }
        // Too long while it was incomplete, which the check of the whole finds too.
        (Ok(Some(end)), Some(Err(_))) => return assert!(wire::check(&data[..end], &limits, &mut Marks::default()).is_err()),
        (Ok(None), Some(Err(_))) => panic!("refused in pieces, and not as a whole"),
        (Err(_), other) => return assert!(other.is_none_or(|other| other.is_err())),
    };
    let mut marks = Marks::default();
    let Ok(framing) = wire::check(&data[..end], &limits, &mut marks) else {
        let (method, path) = wire::for_record(&data[..end]);
        assert!(method.bytes().chain(path.bytes()).all(|byte| byte.is_ascii_graphic()));
        return;
    };
    let header = wire::into_origin_form(BytesMut::from(&data[..end]), &marks);
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut read = httparse::Request::new(&mut fields);
    assert_eq!(read.parse(&header), Ok(httparse::Status::Complete(header.len())));
    assert_eq!(read.version, Some(1));
    assert!(read.path.is_some_and(|target| target.starts_with('/') && target.as_bytes() == &data[marks.target.clone()]));
    assert!(read.method.is_some_and(|method| method.as_bytes() == &data[marks.method.clone()]));
    assert_eq!(marks.fields.len(), read.headers.len());
    for ((name, value), field) in marks.fields.iter().zip(&*read.headers) {
        assert_eq!((field.name.as_bytes(), field.value.trim_ascii()), (&data[name.clone()], &data[value.clone()]));
    }
    let values =
        |name: &str| read.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value).collect::<Vec<_>>();
    assert_eq!(values("host").len(), 1);
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match framing {
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked"));
            chunked(&data[end..]);
        }
        Framing::Length(length) => {
            let said = lengths.iter().map(|value| std::str::from_utf8(value).expect("digits").parse::<u64>().expect("a number"));
            assert!(codings.is_empty() && lengths.len() <= 1 && said.sum::<u64>() == length);
        }
    }
    assert!(read.headers.iter().all(|field| !field.value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')));
}

fn decode(data: &[u8], piece: usize) -> Result<(Vec<u8>, bool, usize), MalformedChunk> {
    let (mut decoder, mut out, mut taken) = (Decoder::default(), Vec::new(), 0);
    for part in data.chunks(piece.max(1)) {
        let mut at = 0;
        while at < part.len() && !decoder.is_done() {
            at += decoder.decode(&part[at..], &mut out, 64)?;
        }
        taken += at;
    }
    Ok((out, decoder.is_done(), taken))
}

fn chunked(data: &[u8]) {
    let whole = decode(data, data.len());
    for piece in [1, 2, 7] {
        assert_eq!(decode(data, piece), whole);
    }
    if let Ok((out, done, taken)) = whole {
        assert!(taken <= data.len());
        let again = decode(&out, out.len()).expect("what was decoded is chunked");
        assert!(again == (out.clone(), done, out.len()), "what is handed on reads the same");
    }
}
