//! The endpoints, asked as the service would.

use std::cell::RefCell;
use std::net::SocketAddr;

use http::HeaderValue;

use super::*;
use crate::trust::mint::NOW;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[derive(Default)]
struct View {
    entry: RefCell<Option<DenyEntry>>,
    recorded: RefCell<Vec<Action>>,
}

impl AdminView for View {
    fn token(&self) -> Option<Arc<Token>> {
        Token::parse(SECRET.as_bytes()).ok().map(Arc::new)
    }
    fn is_ready(&self) -> bool {
        false
    }
    fn metrics(&self) -> String {
        "m".into()
    }
    fn names(&self) -> KnownNames {
        KnownNames { listeners: vec!["edge".into()], trust_domains: vec!["fleet".into()] }
    }
    fn status(&self) -> Value {
        Value::Null
    }
    fn certificates(&self) -> Value {
        Value::Null
    }
    fn census(&self) -> Value {
        Value::Null
    }
    fn connections(&self, selector: &Selector, page: &Page) -> Value {
        json!([selector.to_string(), page.limit, page.after.map(|after| after.to_string())])
    }
    fn reload(&self) -> Result<u64, String> {
        Ok(2)
    }
    fn kick(&self, _: &Selector, grace: Duration, _: Option<&str>) -> usize {
        grace.as_secs() as usize
    }
    fn block(&self, entry: DenyEntry) -> Result<Blocked, BlockError> {
        if entry.trust_domain.is_some() {
            return Err(BlockError::NoPlace);
        }
        *self.entry.borrow_mut() = Some(entry);
        Ok(Blocked { ended: 3, replaced: false })
    }
    fn unblock(&self, selector: &DenySelector, _: Option<&str>) -> Result<Option<DenyEntry>, BlockError> {
        Ok(self.entry.borrow_mut().take_if(|entry| entry.selector == *selector))
    }
    fn blocked(&self) -> Value {
        Value::Null
    }
    fn who(&self, selector: &Selector, presented: &[Certificate]) -> Value {
        json!([selector.to_string(), presented.len()])
    }
    fn record(&self, action: Action) {
        self.recorded.borrow_mut().push(action);
    }
}

fn ask(
    view: &View,
    method: Method,
    url: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> AdminResponse {
    let mut map = HeaderMap::new();
    map.insert("host", HeaderValue::from_static("localhost:9900"));
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let caller = Caller::Tcp(SocketAddr::from(([127, 0, 0, 1], 5000)));
    let request =
        AdminRequest { method: &method, path, query, headers: &map, body: body.as_bytes(), caller, now: NOW };
    respond(&request, view)
}

fn with_token() -> (&'static str, &'static str) {
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef")
}

#[test]
fn each_endpoint_answers_to_its_method_only() {
    let status = |method, url| ask(&View::default(), method, url, &[with_token()], "").status;
    assert_eq!(status(Method::GET, "/healthz"), 200);
    assert_eq!(status(Method::GET, "/readyz"), 503);
    assert_eq!(status(Method::POST, "/reload"), 200);
    assert_eq!(status(Method::GET, "/other"), 404);
    for (path, endpoint) in Endpoint::ALL {
        for method in [Method::GET, Method::POST, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS]
        {
            if method.as_str() != endpoint.method() {
                let response = ask(&View::default(), method.clone(), path, &[with_token()], "");
                assert_eq!(response.status, 405, "{method} {path}");
                assert_eq!(response.header, Some(("Allow", endpoint.method())));
            }
        }
    }
}

#[test]
fn what_changes_or_shows_clients_needs_the_token_and_the_rest_does_not() {
    let view = View::default();
    for (path, endpoint) in Endpoint::ALL {
        let method = endpoint.method().parse().unwrap();
        let response = ask(&view, method, path, &[], "");
        let open = matches!(path, "/healthz" | "/readyz" | "/metrics" | "/status" | "/certs");
        assert_eq!(response.status == 401, !open, "{path}");
    }
    assert!(view.recorded.borrow().iter().all(|action| matches!(action.outcome, Outcome::Refused(_))));
}

#[test]
fn a_page_in_a_browser_can_neither_read_nor_change() {
    for (path, endpoint) in Endpoint::ALL {
        for foreign in
            [("host", "evil.example:9900"), ("origin", "http://localhost"), ("sec-fetch-site", "same-site")]
        {
            let method = endpoint.method().parse().unwrap();
            let response = ask(&View::default(), method, path, &[with_token(), foreign], "");
            assert_eq!(response.status, 403, "{path} {foreign:?}");
        }
    }
}

#[test]
fn connections_are_asked_for_by_page_and_condition() {
    let get = |url: &str| ask(&View::default(), Method::GET, url, &[with_token()], "");
    let flat = |url: &str| get(url).body.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(flat("/connections"), "[ \"\", 100, null ]");
    let url = "/connections?limit=5&after=00000000000000ab&subject=OU%3Dsensors%2CCN%3Da&address=10.0.0.0/8";
    assert_eq!(flat(url), "[ \"address=10.0.0.0/8 subject=OU=sensors,CN=a\", 5, \"00000000000000ab\" ]");
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "after=1",
        "connection=xyz",
        "fingerprint=ab",
        "serial=",
        "subject=a",
        "subject=CN%3D",
        "subject=%20",
        "address=10.0.0.1/8",
        "subjct=CN%3Da",
        "limit=1&limit=1",
    ] {
        assert_eq!(get(&format!("/connections?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn a_kick_says_whom_and_is_recorded_whatever_becomes_of_it() {
    let view = View::default();
    let post = |body: &str| ask(&view, Method::POST, "/kick", &[with_token()], body);
    assert_eq!(post("subject=CN%3Da&grace=5s&reason=stolen").body, "{\n  \"ended\": 5\n}\n");
    for bad in [
        "",
        "listener=edge",
        "trust_domain=fleet",
        "serial=01",
        "issuer=CN%3Dx",
        "serial=01&issuer=+++",
        "address=10.0.0.1",
        "subject=CN%3Da&listener=egde",
        "subject=CN%3Da&trust_domain=flete",
        "subject=CN%3Da&grace=0s",
        "subject=CN%3Da&until=x",
        "subject=CN%3Da&reason=a%0Ab",
    ] {
        assert_eq!(post(bad).status, 400, "{bad}");
    }
    assert_eq!(post(&format!("subject=CN%3Da&reason={}", "x".repeat(201))).status, 400);
    let recorded = view.recorded.borrow();
    assert_eq!(recorded.len(), 14);
    let done = Action {
        name: "kick",
        selector: Some("subject=CN=a".into()),
        reason: Some("stolen".into()),
        until: None,
        connections: Some(5),
        outcome: Outcome::Done,
    };
    assert_eq!(recorded[0], done);
    assert!(recorded[1..].iter().all(|action| matches!(action.outcome, Outcome::Failed(_))));
}

#[test]
fn a_selector_means_those_of_whom_every_condition_holds() {
    use crate::trust::ClientIdentity;
    use crate::trust::mint::Plan;
    let ca = Plan::ca("CN=Test CA").self_signed();
    let leaf = Plan::leaf("CN=sensor-1,OU=sensors").signed_by(&ca).certificate();
    let (fingerprint, key, serial) = (leaf.fingerprint(), leaf.key_fingerprint(), leaf.serial());
    let identity = ClientIdentity::for_tests("fleet", leaf.clone());
    let matches = |query: &str, identity| {
        let selector = Selector::take(&mut Parameters::parse(query, b"").unwrap()).unwrap();
        let address = "10.1.2.3".parse().unwrap();
        selector.matches(&Candidate { connection: 0xab, listener: "edge", address, identity })
    };
    for (query, of_client, of_nobody) in [
        ("", true, true),
        ("listener=edge&address=10.0.0.0/8&connection=00000000000000ab", true, true),
        ("connection=00000000000000AB", true, true),
        ("connection=00000000000000ac", false, false),
        ("listener=other", false, false),
        ("address=10.1.2.4", false, false),
        ("trust_domain=fleet", true, false),
        ("trust_domain=staff", false, false),
        ("subject=CN%3Dsensor-1", true, false),
        ("subject=CN%3DSensor-1", true, false),
        ("subject=CN%3D*", false, false),
        ("subject=CN%3Dsensor-1,OU%3Dsensors", true, false),
        ("subject=OU%3Dsensors,CN%3Dsensor-1", true, false),
        ("subject=CN%3Dsensor-1,OU%3Dstaff", false, false),
        ("subject=CN%3Dsensor", false, false),
        (&format!("fingerprint={fingerprint}"), true, false),
        (&format!("fingerprint={key}"), false, false),
        (&format!("key_fingerprint={key}"), true, false),
        (&format!("serial={serial}&issuer=cn%3Dtest+ca"), true, false),
        (&format!("serial={serial}&issuer=CN%3DOther+CA"), false, false),
        ("serial=7f7f7f7f7f", false, false),
    ] {
        assert_eq!(matches(query, Some(&identity)), of_client, "{query}");
        assert_eq!(matches(query, None), of_nobody, "{query}, without a certificate");
    }
}

#[test]
fn a_selector_can_be_asked_for_again_as_it_is_shown() {
    let query = "connection=00000000000000ab&listener=edge&address=10.0.0.0/8&trust_domain=fleet&serial=0A&\
                 issuer=CN%3DTest+CA&subject=CN%3Da%5C%2Cb";
    let read = |query: &str| Selector::take(&mut Parameters::parse(query, b"").unwrap()).unwrap();
    let selector = read(query);
    let mut again = form_urlencoded::Serializer::new(String::new());
    again.extend_pairs(selector.pairs());
    assert_eq!(read(&again.finish()), selector);
    assert_eq!(selector.pairs().len(), 7);
}

#[test]
fn a_block_is_by_one_name_and_ends_in_the_future_or_never() {
    let view = View::default();
    let post = |path: &str, body: &str| ask(&view, Method::POST, path, &[with_token()], body);
    let digest = "ab".repeat(32);
    for (body, until) in [
        ("subject=CN%3Da,OU%3Db&reason=stolen", None),
        ("subject=CN%3Da&for=7d", Some(NOW + 7 * 86_400)),
        ("subject=CN%3Da&for=5ms", Some(NOW + 1)),
        ("serial=0A&issuer=CN%3DTest+CA&until=2026-02-01T00:00:00.5Z", Some(1_769_904_001)),
        (&format!("fingerprint={digest}"), None),
        (&format!("key_fingerprint={digest}"), None),
    ] {
        let response = post("/block", body);
        assert_eq!(response.status, 200, "{body}: {}", response.body);
        assert_eq!(view.entry.borrow().as_ref().unwrap().until, until, "{body}");
        let named = body.split("&reason").next().unwrap().split("&for").next().unwrap();
        let named = named.split("&until").next().unwrap();
        assert_eq!(post("/unblock", named).status, 200, "{named}");
        assert_eq!(post("/unblock", named).status, 404, "{named}");
    }
    for bad in [
        "subject=CN%3Dsensor-*",
        "",
        "trust_domain=fleet",
        "serial=0A",
        "issuer=CN%3Dx",
        "subject=CN%3Da&issuer=CN%3Dx",
        "subject=CN%3Da&connection=00000000000000ab",
        "subject=CN%3Da&listener=edge",
        "subject=CN%3Da&address=10.0.0.1",
        "subject=OU%3Da,OU%3Db",
        "subject=CN%3Da&until=2025-12-31T00:00:00Z",
        "subject=CN%3Da&until=soon",
        "subject=CN%3Da&for=1d&until=2026-12-31T00:00:00Z",
        "subject=CN%3Da&for=0s",
        "subject=CN%3Da&grace=1s",
        &format!("subject=CN%3Da&fingerprint={digest}"),
    ] {
        assert_eq!(post("/block", bad).status, 400, "{bad}");
    }
    assert_eq!(post("/block", "subject=CN%3Da&trust_domain=fleet").status, 409);
    assert_eq!(post("/unblock", "subject=CN%3Da&for=1d").status, 400);
    let recorded = view.recorded.borrow();
    let first = &recorded[0];
    assert_eq!((first.name, first.connections, first.reason.as_deref()), ("block", Some(3), Some("stolen")));
    assert!(recorded.iter().any(|action| action.name == "unblock" && action.outcome == Outcome::Done));
}

#[test]
fn who_somebody_is_can_be_asked_with_the_certificate_itself() {
    use crate::trust::mint::Plan;
    let leaf = Plan::leaf("CN=a").self_signed();
    let pem = String::from_utf8(leaf.x509.to_pem().unwrap()).unwrap();
    let encoded = |pairs: &[(&str, &str)]| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        format!("/who?{}", query.finish())
    };
    let get = |url: &str| ask(&View::default(), Method::GET, url, &[with_token()], "");
    let answer = get(&encoded(&[("certificate", &pem)]));
    assert!(
        answer.body.contains(&format!("fingerprint={}", leaf.certificate().fingerprint())),
        "{}",
        answer.body
    );
    assert_eq!(get("/who?subject=CN%3Da").status, 200);
    for bad in ["/who", "/who?trust_domain=fleet", "/who?certificate=x", "/who?subject=CN%3Da&limit=5"] {
        assert_eq!(get(bad).status, 400, "{bad}");
    }
    assert_eq!(get(&encoded(&[("certificate", &pem), ("fingerprint", &"ab".repeat(32))])).status, 400);
}
