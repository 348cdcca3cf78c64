//! What a request asks for, in the one form that routing, refusing and forwarding all use.

use http::{HeaderMap, Method, header};
use pingora_http::RequestHeader;

use crate::framing::{Fault, Limits, check_relative, normal_host};

/// What can be wrong with a head whatever the version of HTTP it came in, and its host. In HTTP/1.1 more can be, which
/// [`crate::framing::head`] finds in the bytes.
pub fn check(request: &RequestHeader, limits: &Limits) -> Result<String, Fault> {
    if request.headers.len() > limits.fields {
        return Err(Fault::LargeHead);
    }
    check_framing(&request.headers)?;
    if request.uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(Fault::BadScheme);
    }
    let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if target.len() > limits.target {
        return Err(Fault::LongTarget);
    }
    check_relative(request.method.as_str(), target)?;
    let mut expectations = request.headers.get_all(header::EXPECT).iter();
    if expectations.next().is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        || expectations.next().is_some()
    {
        return Err(Fault::Expectation);
    }
    let length =
        request.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > limits.body) {
        return Err(Fault::LargeBody);
    }
    host(request)
}

/// The host of the request: lower case, without port and final dot (RFC 9110, sections 4.2.3 and 7.2).
fn host(request: &RequestHeader) -> Result<String, Fault> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let header = match hosts.next() {
        Some(value) => Some(value.to_str().map_err(|_| Fault::BadHost)?),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(Fault::SeveralHosts);
    }
    let target = request.uri.authority().map(http::uri::Authority::as_str);
    match (target, header) {
        (Some(target), Some(header)) if normal_host(target)? != normal_host(header)? => {
            Err(Fault::SeveralHosts)
        }
        (Some(host), _) | (None, Some(host)) => normal_host(host),
        (None, None) => Err(Fault::NoHost),
    }
}

/// A message whose length is given twice is how requests are smuggled (RFC 9112, section 6.3).
pub fn check_framing(headers: &HeaderMap) -> Result<(), Fault> {
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let codings = headers.get_all(header::TRANSFER_ENCODING).iter().count();
    let is_number =
        |value: &http::HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    // `4, 4` is 4 for some and an error for others.
    let legible = headers.get(header::CONTENT_LENGTH).is_none_or(is_number);
    if lengths > 1 || !legible {
        Err(Fault::BadLength)
    } else if codings > 1 {
        Err(Fault::BadCoding)
    } else if lengths == 1 && codings == 1 {
        Err(Fault::TwoFramings)
    } else {
        Ok(())
    }
}

/// Requests that may be sent to a second server after the first one failed without harm (RFC 9110, section 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, hosts: &[&str]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for host in hosts {
            request.append_header("Host", *host).unwrap();
        }
        request
    }

    #[test]
    fn a_request_has_one_host() {
        assert_eq!(host(&request("/", &["Example.com.:8443"])).unwrap(), "example.com");
        assert_eq!(host(&request("/", &[])), Err(Fault::NoHost));
        assert_eq!(host(&request("/", &["a", "b"])), Err(Fault::SeveralHosts));
        assert_eq!(host(&request("/", &["a", "a"])), Err(Fault::SeveralHosts));
        assert_eq!(host(&request("/", &["a b"])), Err(Fault::BadHost));
    }

    #[test]
    fn a_length_is_one_number_or_the_request_is_ambiguous() {
        let check = |values: &[&str]| {
            let mut request = request("/", &["a"]);
            for value in values {
                request.append_header("Content-Length", *value).unwrap();
            }
            check_framing(&request.headers)
        };
        for values in [&["4, 4"][..], &["+4"], &["0x4"], &["-1"], &[""], &["4", "4"]] {
            assert_eq!(check(values), Err(Fault::BadLength), "{values:?}");
        }
        for values in [&[][..], &["0"], &["18446744073709551615"]] {
            assert_eq!(check(values), Ok(()), "{values:?}");
        }
    }
}
