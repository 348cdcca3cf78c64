//! One HTTP request, with a limit on everything.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use ureq::http::{HeaderMap, HeaderName, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Timeout};

use super::FetchError;
use super::connector::Secure;

/// To be connected, TLS included; the rest of the timeout is for the answer.
const CONNECT: Duration = Duration::from_secs(10);

const MOST_REDIRECTS: u32 = 3;

/// A validator that is longer is not worth keeping.
const LONGEST_VALIDATOR: usize = 1024;

pub(super) struct Question<'a> {
    pub url: &'a str,
    pub accept: &'a str,
    /// Its media type and the body of a POST; `None`: a GET.
    pub body: Option<(&'a str, &'a [u8])>,
    /// Of what we have already.
    pub known: Option<&'a Validators>,
    /// Whom to believe; `None`: whom the system believes.
    pub ca: Option<&'a Path>,
    pub timeout: Duration,
    pub max_bytes: u64,
}

/// What a server calls the state of a resource (RFC 9110, section 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validators {
    etag: Option<String>,
    last_modified: Option<String>,
}

pub(super) enum Answer {
    /// As it was when its validators were given.
    Unchanged,
    Found(Vec<u8>, Validators),
}

pub(super) fn ask(question: &Question<'_>) -> Result<Answer, FetchError> {
    let is_https = question.url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    let config = Agent::config_builder()
        .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        // Once protected, always protected: also where a redirect leads.
        .https_only(is_https)
        .max_redirects(MOST_REDIRECTS)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .timeout_global(Some(question.timeout))
        .timeout_connect(Some(CONNECT.min(question.timeout)))
        .build();
    let connector = DefaultConnector::default().chain(Secure::new(question.ca));
    let agent = Agent::with_parts(config, connector, DefaultResolver::default());
    let failure = |error| failure(error, question);
    let answer = if let Some((kind, body)) = question.body {
        let request = agent.post(question.url).header(ACCEPT, question.accept);
        request.header(CONTENT_TYPE, kind).send(body).map_err(failure)?
    } else {
        let mut request = agent.get(question.url).header(ACCEPT, question.accept);
        for (name, value) in question.known.into_iter().flat_map(Validators::conditions) {
            request = request.header(name, value);
        }
        request.call().map_err(failure)?
    };
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if question.known.is_some() => return Ok(Answer::Unchanged),
        other => return Err(FetchError::Status(other.as_u16())),
    }
    let validators = Validators::of(answer.headers());
    let mut body = answer.into_body();
    if body.content_length().is_some_and(|length| length > question.max_bytes) {
        return Err(FetchError::TooLarge(question.max_bytes));
    }
    let bytes = body.with_config().limit(question.max_bytes).read_to_vec().map_err(failure)?;
    Ok(Answer::Found(bytes, validators))
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| {
            let value = headers.get(name)?.to_str().ok()?;
            (value.len() <= LONGEST_VALIDATOR).then(|| value.to_owned())
        };
        Self { etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
    }

    /// A server that knows the entity tag ignores the date.
    fn conditions(&self) -> impl Iterator<Item = (HeaderName, &String)> {
        let etag = self.etag.iter().map(|etag| (IF_NONE_MATCH, etag));
        etag.chain(self.last_modified.iter().map(|date| (IF_MODIFIED_SINCE, date)))
    }
}

fn failure(error: ureq::Error, question: &Question<'_>) -> FetchError {
    match error {
        ureq::Error::Timeout(which) => FetchError::Timeout(
            if which == Timeout::Connect { CONNECT.min(question.timeout) } else { question.timeout },
            match which {
                Timeout::Resolve => "its name was not resolved",
                Timeout::Connect => "no connection was made",
                _ => "`timeout`",
            },
        ),
        ureq::Error::BodyExceedsLimit(_) => FetchError::TooLarge(question.max_bytes),
        ureq::Error::StatusCode(status) => FetchError::Status(status),
        ureq::Error::RequireHttpsOnly(_) => FetchError::Refused(
            "a redirect from `https` to `http`, which anybody could have written".to_owned(),
        ),
        ureq::Error::TooManyRedirects => FetchError::Refused(format!("more than {MOST_REDIRECTS} redirects")),
        other => FetchError::Unreachable(other.to_string()),
    }
}
