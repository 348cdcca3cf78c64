//! Requests that the gateway carries itself: with the same outcome as Pingora's way, whatever either side does.

use crate::support::{Scripted, Site};

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn an_http2_body_of_no_announced_length_reaches_the_origin_whole() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let url = format!("https://localhost:{}/", site.port);
    let status = site.over_h2("sensor-1", async |send| {
        let request = http::Request::post(&url).body(()).unwrap();
        let (response, mut body) = send.ready().await.unwrap().send_request(request, false).unwrap();
        body.send_data("a streamed ".into(), false).unwrap();
        body.send_data("message".into(), true).unwrap();
        response.await.unwrap().status()
    });
    assert_eq!(status, 200);
    let seen = origin.requests().concat();
    assert!(seen.contains("a streamed ") && seen.contains("message"), "{seen}");
}

#[test]
fn a_request_that_is_handed_over_is_counted_once() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let url = format!("https://localhost:{}/", site.port);
    site.over_h2("sensor-1", async |mut send| {
        for _ in 0..2 {
            let request = http::Request::post(&url).header("content-length", "100000").body(()).unwrap();
            send = send.ready().await.unwrap();
            let (response, mut body) = send.send_request(request, false).unwrap();
            body.send_data(vec![b'x'; 100_000].into(), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        }
    });
    let line = gateway.logged(&["\"request\"", "-2\""]);
    assert!(line.contains("\"bytes_in\":100000"), "{line}");
    assert!(!gateway.log().contains("-3\""), "{}", gateway.log());
}
