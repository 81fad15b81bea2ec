//! The parameters of a form (RFC 6749 §3.2): each once, and an empty one is none.

use http::HeaderValue;
use zeroize::Zeroize;

use super::Failure;

/// The parameters of one request.
pub(super) struct Form(Vec<(String, String)>);

impl Drop for Form {
    fn drop(&mut self) {
        // Secrets are among them.
        self.0.iter_mut().for_each(|(_, value)| value.zeroize());
    }
}

/// More than any request has a use for: each is compared with all before it.
const MAX_PARAMETERS: usize = 32;

impl Form {
    /// Reads the content of a request.
    ///
    /// # Errors
    /// `invalid_request` for another type, for a parameter that is there twice, and for more than 32 of them.
    pub(super) fn read(content_type: Option<&HeaderValue>, content: &[u8]) -> Result<Self, Failure> {
        let media = content_type.and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next()).unwrap_or_default();
        if !media.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Failure::request("the content must be application/x-www-form-urlencoded"));
        }
        if std::str::from_utf8(content).is_err() {
            return Err(Failure::request("the content is not UTF-8"));
        }
        let mut form = Self(Vec::new());
        for (name, value) in form_urlencoded::parse(content) {
            if form.0.len() == MAX_PARAMETERS {
                return Err(Failure::request("there are too many parameters"));
            }
            if form.0.iter().any(|(known, _)| *known == name) {
                return Err(Failure::request("a parameter is there more than once"));
            }
            form.0.push((name.into_owned(), value.into_owned()));
        }
        Ok(form)
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// A parameter that has to be there.
    ///
    /// # Errors
    /// `invalid_request` names it.
    pub(super) fn require(&self, name: &str) -> Result<&str, Failure> {
        self.get(name).ok_or_else(|| Failure::request(format!("the parameter {name} is missing")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8");

    #[test]
    fn each_parameter_stands_once_and_an_empty_one_is_none() {
        let form = Form::read(Some(&FORM), b"grant_type=client_credentials&scope=a+b%20c&client_id=&x").unwrap();
        assert_eq!((form.get("grant_type"), form.get("scope")), (Some("client_credentials"), Some("a b c")));
        assert_eq!((form.get("client_id"), form.get("x"), form.get("y")), (None, None, None));
        assert!(form.require("y").err().unwrap().description.contains("y is missing"));
        for twice in ["a=1&a=1", "a=&a=1", "a=1&%61=2"] {
            assert_eq!(Form::read(Some(&FORM), twice.as_bytes()).err().unwrap().code, "invalid_request", "{twice}");
        }
        let many = |count: usize| (0..count).map(|n| format!("p{n}=")).collect::<Vec<_>>().join("&");
        assert!(Form::read(Some(&FORM), many(MAX_PARAMETERS).as_bytes()).is_ok());
        assert_eq!(Form::read(Some(&FORM), many(MAX_PARAMETERS + 1).as_bytes()).err().unwrap().code, "invalid_request");
        assert!(Form::read(Some(&FORM), b"a=\xff").is_err());
        for other in [None, Some(HeaderValue::from_static("application/json")), Some(HeaderValue::from_static("text/plain"))] {
            assert!(Form::read(other.as_ref(), b"{}").is_err());
        }
    }
}
