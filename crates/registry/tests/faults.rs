//! Against registries that misbehave: each fault ends in the same bytes or in a clear error, and no secret goes
//! astray.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::Response;
use futures_util::{StreamExt as _, stream};
use mlxctl_artifact::{Descriptor, Digest, Reference, media_type};
use mlxctl_content::{Error, Fetch as _, List as _, Memory, Observer, Push as _, Quiet, Resolve as _, read_all};
use mlxctl_registry::{Credential, Registry, RegistryOptions, RemoteRepository, RetryPolicy, Secret, Static};

/// One request as the server saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    path: String,
    query: String,
    authorization: Option<String>,
    range: Option<String>,
    body: Vec<u8>,
    /// How many requests of this method and path came before.
    before: usize,
}

/// A server whose every answer a closure decides.
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let (head, body) = request.into_parts();
                let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
                let mut one = Seen {
                    method: head.method.to_string(),
                    path: head.uri.path().to_owned(),
                    query: head.uri.query().unwrap_or_default().to_owned(),
                    authorization: header("authorization"),
                    range: header("range"),
                    body: to_bytes(body, 1 << 24).await.unwrap_or_default().to_vec(),
                    before: 0,
                };
                let mut log = log.lock().unwrap();
                one.before = log.iter().filter(|seen| (&seen.method, &seen.path) == (&one.method, &one.path)).count();
                log.push(one.clone());
                answer(&one)
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, task }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn repository(&self, options: &RegistryOptions) -> RemoteRepository {
        let reference: Reference = format!("{}/org/m", self.address).parse().unwrap();
        Registry::new(&self.address, options).unwrap().repository(&reference)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn quick() -> RegistryOptions {
    let retry = RetryPolicy { tries: 4, base: Duration::from_millis(1), ..RetryPolicy::default() };
    RegistryOptions { retry, stall_timeout: Duration::from_millis(500), ..RegistryOptions::default() }
}

fn as_ada(registry: &str) -> RegistryOptions {
    let credential = Credential::Basic { user: "ada".to_owned(), password: Secret::new("hunter2") };
    RegistryOptions { credentials: Arc::new(Static { registry: registry.to_owned(), credential }), ..quick() }
}

fn content() -> Vec<u8> {
    (0..100_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn blob() -> Descriptor {
    Descriptor::of(media_type::OCTET_STREAM, &content())
}

fn answer(status: u16) -> axum::http::response::Builder {
    Response::builder().status(status)
}

fn plain(status: u16) -> Response<Body> {
    answer(status).body(Body::empty()).unwrap()
}

/// The bytes that a `Range` header asks for.
fn asked(seen: &Seen) -> std::ops::Range<usize> {
    let size = content().len();
    let Some(range) = seen.range.as_deref().and_then(|text| text.strip_prefix("bytes=")) else { return 0..size };
    let (start, last) = range.split_once('-').unwrap();
    start.parse().unwrap()..last.parse::<usize>().map_or(size, |last| last + 1)
}

/// A good answer to a GET of the blob, cut off after `limit` bytes.
fn cut(seen: &Seen, limit: usize) -> Response<Body> {
    let (range, content) = (asked(seen), content());
    let head = if seen.range.is_some() {
        let says = format!("bytes {}-{}/{}", range.start, range.end - 1, content.len());
        answer(206).header("content-range", says)
    } else {
        answer(200)
    };
    let head = head.header("content-length", range.len());
    let piece = content[range.start..range.end.min(range.start + limit)].to_vec();
    if piece.len() == range.len() {
        return head.body(Body::from(piece)).unwrap();
    }
    // The server sends what it has when its source makes it wait: so the bytes before the cut do arrive.
    let cut = stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut"))
    });
    let broken = stream::iter([Ok(bytes::Bytes::from(piece))]).chain(cut);
    head.body(Body::from_stream(broken)).unwrap()
}

async fn pulled(repository: &RemoteRepository) -> Result<Vec<u8>, Error> {
    read_all(repository, &blob(), u64::MAX).await.map(|bytes| bytes.to_vec())
}

#[tokio::test]
async fn a_stream_goes_on_at_the_byte_where_it_was_cut() {
    let server = Server::start(|seen| cut(seen, 30_000)).await;
    assert_eq!(pulled(&server.repository(&quick())).await.unwrap(), content());
    let ranges: Vec<_> = server.seen().into_iter().map(|seen| seen.range).collect();
    let expected = [None, Some("bytes=30000-99999"), Some("bytes=60000-99999"), Some("bytes=90000-99999")];
    assert_eq!(ranges, expected.map(|range| range.map(str::to_owned)));
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_is_read_from_the_start() {
    let server = Server::start(|seen| {
        let whole = Seen { range: None, ..seen.clone() };
        cut(&whole, if seen.before == 0 { 30_000 } else { 200_000 })
    })
    .await;
    assert_eq!(pulled(&server.repository(&quick())).await.unwrap(), content());
    let mut middle = server.repository(&quick()).fetch(&blob(), 5..70_000).await.unwrap();
    let mut found = Vec::new();
    while let Some(bytes) = middle.next().await {
        found.extend_from_slice(&bytes.unwrap());
    }
    assert_eq!(found, content()[5..70_000]);
}

#[tokio::test]
async fn failures_that_pass_are_tried_again_and_told() {
    #[derive(Default)]
    struct Notices(Mutex<Vec<String>>);
    impl Observer for Notices {
        fn notice(&self, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }
    let server = Server::start(|seen| match seen.before {
        0 => plain(500),
        1 => answer(429)
            .header("retry-after", "0")
            .body(Body::from(r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#))
            .unwrap(),
        2 => plain(503),
        _ => cut(seen, 200_000),
    })
    .await;
    let notices = Arc::new(Notices::default());
    let options = RegistryOptions { observer: Arc::clone(&notices) as Arc<dyn Observer>, ..quick() };
    assert_eq!(pulled(&server.repository(&options)).await.unwrap(), content());
    let told = notices.0.lock().unwrap();
    assert_eq!(told.len(), 3);
    assert!(told[1].contains("429: TOOMANYREQUESTS"), "{told:?}");
}

#[tokio::test]
async fn failures_that_last_end_in_an_error() {
    let check = async |answer: fn(&Seen) -> Response<Body>, tries: usize, expected: &str| {
        let server = Server::start(answer).await;
        let message = pulled(&server.repository(&quick())).await.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(server.seen().len(), tries, "{expected}");
    };
    check(|_| plain(500), 4, "status 500").await;
    check(|_| plain(404), 1, "not found").await;
    check(|_| plain(403), 1, "status 403").await;
    check(|_| answer(429).header("retry-after", "86400").body(Body::empty()).unwrap(), 1, "status 429").await;
    check(|seen| cut(seen, 0), 4, "GET http://127.0.0.1").await;
    check(|_| answer(200).body(Body::from("short")).unwrap(), 1, "size mismatch").await;
    check(|_| answer(302).header("location", "file:///etc/passwd").body(Body::empty()).unwrap(), 1, "refused").await;
    check(|_| answer(307).header("location", "/again").body(Body::empty()).unwrap(), 6, "redirects").await;
}

#[tokio::test]
async fn a_part_that_is_not_the_one_asked_for_is_refused() {
    for says in ["bytes 6-10/100000", "bytes 5-99999/100000", "bytes 5-9/99999", "nonsense", "bytes */100000"] {
        let server =
            Server::start(move |_| answer(206).header("content-range", says).body(Body::from(vec![0; 5])).unwrap())
                .await;
        let refused = server.repository(&quick()).fetch(&blob(), 5..10).await;
        assert!(refused.is_err(), "{says}");
    }
}

#[tokio::test]
async fn a_silent_connection_is_replaced() {
    let server = Server::start(|seen| {
        if seen.before > 0 {
            return cut(seen, 200_000);
        }
        let start = bytes::Bytes::from(content()[..10].to_vec());
        let silent = stream::iter([Ok::<_, std::io::Error>(start)]).chain(stream::pending());
        answer(200).header("content-length", content().len()).body(Body::from_stream(silent)).unwrap()
    })
    .await;
    assert_eq!(pulled(&server.repository(&quick())).await.unwrap(), content());
    assert_eq!(server.seen()[1].range.as_deref(), Some("bytes=10-99999"));
}

#[tokio::test]
async fn flipped_bytes_never_arrive() {
    let server = Server::start(|_| {
        let mut content = content();
        content[50_000] ^= 1;
        answer(200).body(Body::from(content)).unwrap()
    })
    .await;
    assert!(matches!(pulled(&server.repository(&quick())).await, Err(Error::DigestMismatch { .. })));
}

/// A registry with token authentication: `accepts` says which tokens are good now.
async fn with_tokens(accepts: impl Fn(&str, &Seen) -> bool + Send + Sync + 'static) -> Server {
    let grants = Mutex::new(0);
    let address = Arc::new(Mutex::new(String::new()));
    let known = Arc::clone(&address);
    let server = Server::start(move |seen| {
        if seen.path == "/token" {
            let mut grants = grants.lock().unwrap();
            *grants += 1;
            let token = format!(r#"{{"token":"t{grants}","expires_in":300}}"#);
            return answer(200).body(Body::from(token)).unwrap();
        }
        let token = seen.authorization.as_deref().and_then(|text| text.strip_prefix("Bearer "));
        if token.is_some_and(|token| accepts(token, seen)) {
            return match seen.method.as_str() {
                "GET" => cut(seen, 40_000),
                "HEAD" => plain(404),
                "POST" => answer(202).header("location", "/up/1?state=a%2Fb").body(Body::empty()).unwrap(),
                _ => plain(201),
            };
        }
        let realm = format!("http://{}/token", known.lock().unwrap());
        let challenge = format!(r#"Bearer realm="{realm}",service="reg",scope="repository:evil:*""#);
        answer(401).header("www-authenticate", challenge).body(Body::empty()).unwrap()
    })
    .await;
    address.lock().unwrap().clone_from(&server.address);
    server
}

#[tokio::test]
async fn a_token_is_fetched_kept_and_renewed_in_the_middle_of_a_blob() {
    // The second part of the blob needs the second token.
    let server = with_tokens(|token, seen| token == if seen.range.is_none() { "t1" } else { "t2" }).await;
    let there = server.repository(&as_ada(&server.address));
    assert_eq!(pulled(&there).await.unwrap(), content());
    let seen = server.seen();
    let tokens: Vec<_> = seen.iter().filter(|seen| seen.path == "/token").collect();
    assert_eq!(tokens.len(), 2);
    for token in tokens {
        assert_eq!(token.query, "service=reg&scope=repository%3Aorg%2Fm%3Apull");
        // base64("ada:hunter2")
        assert_eq!(token.authorization.as_deref(), Some("Basic YWRhOmh1bnRlcjI="));
    }
    let shown: Vec<_> =
        seen.iter().filter(|seen| seen.path != "/token").map(|seen| seen.authorization.clone()).collect();
    let expected = [None, Some("Bearer t1"), Some("Bearer t1"), Some("Bearer t2"), Some("Bearer t2")];
    assert_eq!(shown, expected.map(|shown| shown.map(str::to_owned)));
}

#[tokio::test]
async fn a_push_asks_for_its_own_scope_and_keeps_the_locations_query() {
    let server = with_tokens(|_, _| true).await;
    let there = server.repository(&quick());
    let source = Memory::default();
    source.insert(media_type::OCTET_STREAM, content());
    there.push(&blob(), &source, &Quiet).await.unwrap();
    let seen = server.seen();
    let token = seen.iter().find(|seen| seen.path == "/token").unwrap();
    assert_eq!(token.query, "service=reg&scope=repository%3Aorg%2Fm%3Apull%2Cpush");
    let put = seen.iter().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!((put.path.as_str(), put.query.clone()), ("/up/1", format!("state=a%2Fb&digest={}", blob().digest)));
    assert_eq!(put.body, content());
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post_and_stays_out_of_addresses() {
    let server = with_tokens(|_, _| true).await;
    let credential = Credential::IdentityToken(Secret::new("r&t=1"));
    let credentials = Arc::new(Static { registry: server.address.clone(), credential });
    let there = server.repository(&RegistryOptions { credentials, ..quick() });
    assert_eq!(pulled(&there).await.unwrap(), content());
    let seen = server.seen();
    let token = seen.iter().find(|seen| seen.path == "/token").unwrap();
    assert_eq!((token.method.as_str(), token.query.as_str(), &token.authorization), ("POST", "", &None));
    let form = "service=reg&scope=repository%3Aorg%2Fm%3Apull&grant_type=refresh_token&client_id=mlxctl&refresh_token=r%26t%3D1";
    assert_eq!(String::from_utf8_lossy(&token.body), form);
}

#[tokio::test]
async fn a_token_service_that_fails_is_an_error_and_never_anonymous() {
    for (status, body) in [(403, "{}"), (401, r#"{"details":"bad password"}"#), (200, "{}"), (500, ""), (404, "")] {
        let server = Server::start(move |_| answer(status).body(Body::from(body)).unwrap()).await;
        let realm = format!("http://{}/token", server.address);
        let registry = Server::start(move |_| {
            answer(401).header("www-authenticate", format!(r#"Bearer realm="{realm}""#)).body(Body::empty()).unwrap()
        })
        .await;
        let message = pulled(&registry.repository(&as_ada(&registry.address))).await.unwrap_err();
        assert!(message.to_string().contains("/token"), "{message}");
        assert!(!message.to_string().contains("hunter2"), "{message}");
        assert_eq!(registry.seen().len(), 1, "the registry was asked again without a token");
    }
}

#[tokio::test]
async fn a_password_is_not_sent_over_http_to_another_machine() {
    let registry = Server::start(|_| {
        let challenge = r#"Bearer realm="http://192.0.2.1/token""#;
        answer(401).header("www-authenticate", challenge).body(Body::empty()).unwrap()
    })
    .await;
    let refused = pulled(&registry.repository(&as_ada(&registry.address))).await.unwrap_err().to_string();
    assert!(refused.contains("192.0.2.1/token") && refused.contains("over http to another machine"), "{refused}");
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credentials() {
    let storage = Server::start(|seen| cut(seen, 30_000)).await;
    let elsewhere = format!("http://{}/bucket/blob?X-Signature=abc", storage.address);
    let registry = Server::start(move |seen| {
        if seen.authorization.is_none() {
            return answer(401).header("www-authenticate", "Basic realm=x").body(Body::empty()).unwrap();
        }
        answer(307).header("location", &elsewhere).body(Body::empty()).unwrap()
    })
    .await;
    assert_eq!(pulled(&registry.repository(&as_ada(&registry.address))).await.unwrap(), content());
    assert!(registry.seen().iter().skip(1).all(|seen| seen.authorization.is_some()));
    assert_eq!(storage.seen().len(), 4);
    for seen in storage.seen() {
        assert_eq!((seen.authorization, seen.query.as_str()), (None, "X-Signature=abc"));
    }
    let refusing = Server::start(|_| plain(403)).await;
    let elsewhere = format!("http://{}/b?X-Signature=abc", refusing.address);
    let registry =
        Server::start(move |_| answer(302).header("location", &elsewhere).body(Body::empty()).unwrap()).await;
    let message = pulled(&registry.repository(&quick())).await.unwrap_err().to_string();
    assert!(message.contains("/b") && !message.contains("Signature"), "{message}");
}

#[tokio::test]
async fn an_upload_is_tried_again_and_its_progress_taken_back() {
    #[derive(Default)]
    struct Sum(std::sync::atomic::AtomicI64);
    impl Observer for Sum {
        fn moved(&self, _: &Descriptor, bytes: i64) {
            self.0.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let server = Server::start(|seen| match (seen.method.as_str(), seen.before) {
        ("HEAD", _) => plain(404),
        ("POST", 0) => plain(503),
        ("POST", _) => answer(202).header("location", "up").body(Body::empty()).unwrap(),
        ("PUT", 0) => plain(500),
        ("PUT", _) => plain(201),
        _ => plain(204),
    })
    .await;
    let source = Memory::default();
    source.insert(media_type::OCTET_STREAM, content());
    let sum = Sum::default();
    server.repository(&quick()).push(&blob(), &source, &sum).await.unwrap();
    assert_eq!(sum.0.into_inner(), 100_000);
    let puts: Vec<_> = server.seen().into_iter().filter(|seen| seen.method == "PUT").collect();
    assert_eq!(puts.len(), 2);
    assert_eq!(puts[1].path, "/v2/org/m/blobs/uploads/up");
    assert_eq!(puts[1].body, content());
}

#[tokio::test]
async fn a_registry_that_stored_something_else_is_not_believed() {
    let other = Digest::sha256_of(b"other").to_string();
    let server = Server::start(move |seen| match seen.method.as_str() {
        "POST" => answer(202).header("location", "/up").body(Body::empty()).unwrap(),
        "PUT" => answer(201).header("docker-content-digest", &other).body(Body::empty()).unwrap(),
        _ => plain(404),
    })
    .await;
    let source = Memory::default();
    source.insert(media_type::OCTET_STREAM, content());
    let there = server.repository(&quick());
    let refused = there.push(&blob(), &source, &Quiet).await.unwrap_err().to_string();
    assert!(refused.contains("says it stored"), "{refused}");
    let manifest = source.insert(media_type::OCI_MANIFEST, &b"{}"[..]);
    assert!(there.push(&manifest, &source, &Quiet).await.is_err());
}

#[tokio::test]
async fn a_source_that_fails_ends_the_upload_with_its_own_error() {
    struct Broken;
    #[async_trait::async_trait]
    impl mlxctl_content::Fetch for Broken {
        async fn fetch(&self, _: &Descriptor, _: std::ops::Range<u64>) -> Result<mlxctl_content::ByteStream, Error> {
            let failure = Error::Refused { message: "the disk is gone".to_owned() };
            Ok(Box::pin(stream::iter([Ok(bytes::Bytes::from(vec![0; 5000])), Err(failure)])))
        }
    }
    let server = Server::start(|seen| match seen.method.as_str() {
        "POST" => answer(202).header("location", "/up").body(Body::empty()).unwrap(),
        "DELETE" => plain(204),
        _ => plain(201),
    })
    .await;
    let failed = server.repository(&quick()).push(&blob(), &Broken, &Quiet).await.unwrap_err();
    assert_eq!(failed.to_string(), "the disk is gone");
    let methods: Vec<_> = server.seen().into_iter().map(|seen| seen.method).filter(|method| method != "PUT").collect();
    assert_eq!(methods, ["POST", "DELETE"]);
}

#[tokio::test]
async fn manifests_are_resolved_without_trusting_the_registry() {
    let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    let digest = Digest::sha256_of(manifest.as_bytes());
    // No digest in the head: the manifest itself is read.
    let server = Server::start(move |seen| match seen.method.as_str() {
        "HEAD" => plain(200),
        _ => answer(200).header("content-type", "application/json").body(Body::from(manifest)).unwrap(),
    })
    .await;
    let found = server.repository(&quick()).resolve("v1").await.unwrap();
    assert_eq!((found.digest, found.size), (digest, manifest.len() as u64));
    assert_eq!(found.media_type, media_type::OCI_MANIFEST);
    let other = Digest::sha256_of(b"other").to_string();
    let refused = server.repository(&quick()).resolve(&other).await.unwrap_err();
    assert!(matches!(refused, Error::DigestMismatch { .. }), "{refused}");

    let check = async |headers: &[(&'static str, String)], body: &'static str, name: &str| {
        let headers = headers.to_vec();
        let server = Server::start(move |_| {
            let head = headers.iter().fold(answer(200), |head, (name, value)| head.header(*name, value));
            head.body(Body::from(body)).unwrap()
        })
        .await;
        server.repository(&quick()).resolve(name).await.unwrap_err().to_string()
    };
    let lie = [("docker-content-digest", other.clone())];
    assert!(check(&lie, manifest, "v1").await.contains("digest mismatch"));
    let typed = [("docker-content-digest", other), ("content-type", media_type::OCI_MANIFEST.to_owned())];
    assert!(check(&typed, manifest, &digest.to_string()).await.contains("digest mismatch"));
    assert!(check(&[], "<html>", "v1").await.contains("no JSON"));
    assert!(check(&[], r#"{"schemaVersion":1}"#, "v1").await.contains("expected an OCI or Docker"));
    assert!(check(&[], r#"{"layers":[],"manifests":[]}"#, "v1").await.contains("at once"));
}

#[tokio::test]
async fn a_manifest_without_an_end_is_cut_off() {
    let server = Server::start(|_| {
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1 << 16])));
        answer(200).body(Body::from_stream(endless)).unwrap()
    })
    .await;
    let refused = server.repository(&quick()).resolve("v1").await.unwrap_err().to_string();
    assert!(refused.contains("larger than 4194304 bytes"), "{refused}");
}

#[tokio::test]
async fn tags_are_read_page_by_page_from_this_registry_alone() {
    let server = Server::start(|seen| match seen.query.as_str() {
        "n=1000" => answer(200)
            .header("link", "</v2/org/m/tags/list?n=2&last=b>; rel=\"next\"")
            .body(Body::from(r#"{"tags":["b","\u001b[31mred","a b"]}"#))
            .unwrap(),
        _ => answer(200)
            .header("link", "<http://192.0.2.1/>; rel=\"next\"")
            .body(Body::from(r#"{"name":"org/m","tags":["a","b"]}"#))
            .unwrap(),
    })
    .await;
    assert_eq!(server.repository(&quick()).tags().await.unwrap(), ["a", "b"]);
    let none = Server::start(|_| answer(200).body(Body::from(r#"{"tags":null}"#)).unwrap()).await;
    assert!(none.repository(&quick()).tags().await.unwrap().is_empty());
}

#[tokio::test]
async fn connection_errors_name_the_address_and_what_to_do() {
    // A port on which nobody listens any more.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let reference: Reference = format!("{address}/m").parse().unwrap();
    let there = Registry::new(&address, &quick()).unwrap().repository(&reference);
    let refused = there.resolve("v1").await.unwrap_err().to_string();
    assert!(refused.contains(&format!("HEAD http://{address}/v2/m/manifests/v1")), "{refused}");
    assert!(refused.to_lowercase().contains("refused"), "{refused}");
    // TLS to a port that speaks http.
    let server = Server::start(|_| plain(200)).await;
    let options = RegistryOptions { insecure: true, ..quick() };
    let there = Registry::new(&server.address, &options).unwrap().repository(&reference);
    let failed = there.resolve("v1").await.unwrap_err();
    assert!(failed.hint().is_some_and(|hint| hint.contains("--plain-http")), "{failed} {:?}", failed.hint());
    assert_eq!(server.seen().len(), 0);
}
