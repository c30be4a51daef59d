//! The registry over the real local store: our own client, skopeo, and the specification's requests one by one.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mlxctl_artifact::{Descriptor, Digest, LayerKind, Manifest, ModelLayer, Reference, media_type};
use mlxctl_content::{
    CopyOptions, Error, Fetch as _, List as _, Memory, Quiet, Repository, Resolve as _, Tag as _, copy, read_all,
};
use mlxctl_registry::{Registry, RegistryOptions, RemoteRepository};
use mlxctl_registry_server::{Account, Listener, Options, Repositories, Tls, router, serve};
use mlxctl_store::{LocalRepository, Store};
use mlxctl_testkit::registry::{server_certificate, skopeo};
use reqwest::{Client, Method, Response, StatusCode};

/// The store as a registry. Open repositories are kept, so that their leases live as long as the server.
struct Stored {
    store: Store,
    open: Mutex<HashMap<String, Arc<LocalRepository>>>,
}

#[async_trait]
impl Repositories for Stored {
    fn repository(&self, name: &str) -> Result<Arc<dyn Repository>, Error> {
        let mut open = self.open.lock().unwrap();
        if let Some(repository) = open.get(name) {
            return Ok(Arc::clone(repository) as Arc<dyn Repository>);
        }
        let repository = Arc::new(self.store.repository(name).map_err(Error::from)?);
        open.insert(name.to_owned(), Arc::clone(&repository));
        Ok(repository)
    }

    async fn names(&self) -> Result<Vec<String>, Error> {
        self.store.repositories().map_err(Error::from)
    }
}

/// A registry on a free port; its store goes when it is dropped.
struct Server {
    address: String,
    scheme: &'static str,
    client: Client,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start(options: Options) -> Self {
        Self::start_with(options, None, Client::builder()).await
    }

    async fn start_with(options: Options, tls: Option<Tls>, client: reqwest::ClientBuilder) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let stored = Arc::new(Stored { store, open: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = match tls {
            Some(tls) => Listener::with_tls(listener, tls).unwrap(),
            None => Listener::plain(listener).unwrap(),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(serve(listener, router(stored, options), async move {
            let _ = stopped.await;
        }));
        let client = client.no_proxy().build().unwrap();
        Self { address, scheme, client, stop: Some(stop), _folder: folder }
    }

    fn repository(&self, name: &str) -> RemoteRepository {
        let reference: Reference = format!("{}/{name}", self.address).parse().unwrap();
        Registry::new(&self.address, &RegistryOptions::default()).unwrap().repository(&reference)
    }

    /// Sends one request; `location` may be relative.
    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let url =
            if path.starts_with('/') { format!("{}://{}{path}", self.scheme, self.address) } else { path.to_owned() };
        let mut request = self.client.request(method.clone(), url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if method != Method::GET && method != Method::HEAD {
            request = request.body(body.to_vec());
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, &[], b"").await
    }

    /// Stores a blob with one POST.
    async fn blob(&self, name: &str, content: &[u8]) -> Descriptor {
        let blob = Descriptor::of(media_type::OCTET_STREAM, content);
        let path = format!("/v2/{name}/blobs/uploads/?digest={}", blob.digest);
        let answer = self.ask(Method::POST, &path, &[], content).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(header(&answer, "location"), format!("/v2/{name}/blobs/{}", blob.digest));
        blob
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
    }
}

fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// The code of an error's document.
async fn code(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let document: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    (status, document["errors"][0]["code"].as_str().unwrap().to_owned())
}

fn model(store: &Memory, size: usize) -> Descriptor {
    let weights: Vec<u8> = (0..size as u32).map(|at| (at.wrapping_mul(2654435761) >> 24) as u8).collect();
    let files: [(&str, Vec<u8>); 3] =
        [("model.safetensors", weights), ("config.json", b"{\"a\":1}".to_vec()), ("empty", Vec::new())];
    let layers: Vec<_> = files
        .into_iter()
        .map(|(path, content)| {
            let blob = store.insert(media_type::OCTET_STREAM, content);
            ModelLayer::of_file(LayerKind::Weight, path.parse().unwrap(), &blob)
        })
        .collect();
    let config = store.insert(media_type::MODEL_CONFIG, &b"{}"[..]);
    store.insert(media_type::OCI_MANIFEST, Manifest::of_model(config, &layers, BTreeMap::new()).to_bytes())
}

#[tokio::test]
async fn our_client_pushes_and_pulls_back_the_same_bytes() {
    let server = Server::start(Options::default()).await;
    let source = Memory::default();
    let root = model(&source, 3_000_000);
    let there = server.repository("org/deep/pebble");
    let copied = copy(&source, &there, &root, CopyOptions::default(), &Quiet).await.unwrap();
    assert_eq!(copied.moved, 5);
    there.tag(&root, "v1").await.unwrap();
    assert_eq!(there.tags().await.unwrap(), ["v1"]);
    assert_eq!(copy(&source, &there, &root, CopyOptions::default(), &Quiet).await.unwrap().moved, 0);

    let again = server.repository("org/deep/pebble");
    let found = again.resolve("v1").await.unwrap();
    assert_eq!((found.digest, found.size, &found.media_type), (root.digest, root.size, &root.media_type));
    let back = Memory::default();
    copy(&again, &back, &found, CopyOptions::default(), &Quiet).await.unwrap();
    let sent = read_all(&source, &root, u64::MAX).await.unwrap();
    assert_eq!(read_all(&back, &root, u64::MAX).await.unwrap(), sent);
    for blob in Manifest::parse(&sent).unwrap().blobs() {
        assert!(read_all(&back, blob, u64::MAX).await.is_ok(), "{}", blob.digest);
        assert!(again.fetch(blob, 0..blob.size).await.is_ok());
    }
}

#[tokio::test]
async fn skopeo_copies_in_and_out() {
    let server = Server::start(Options::default()).await;
    let source = Memory::default();
    let root = model(&source, 200_000);
    copy(&source, &server.repository("a/b"), &root, CopyOptions::default(), &Quiet).await.unwrap();
    server.repository("a/b").tag(&root, "v1").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = format!("dir:{}", folder.path().join("out").display());
    let back = format!("dir:{}", folder.path().join("back").display());
    let (first, second) = (format!("docker://{}/a/b:v1", server.address), format!("docker://{}/c:v2", server.address));
    for (from, to) in [(&first, &out), (&out, &second), (&second, &back)] {
        let arguments = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests", from, to];
        let arguments = arguments.map(str::to_owned);
        let copied =
            tokio::task::spawn_blocking(move || skopeo(&arguments.each_ref().map(String::as_str))).await.unwrap();
        let Some(copied) = copied else { return };
        assert!(copied.status.success(), "{from} → {to}: {}", String::from_utf8_lossy(&copied.stderr));
    }
    assert_eq!(server.repository("c").resolve("v2").await.unwrap().digest, root.digest);
    for entry in std::fs::read_dir(folder.path().join("out")).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |side: &str| std::fs::read(folder.path().join(side).join(&name)).unwrap();
        assert_eq!(read("out"), read("back"), "{name:?}");
    }
}

#[tokio::test]
async fn chunks_arrive_in_order_and_an_upload_goes_on_where_it_stopped() {
    let server = Server::start(Options::default()).await;
    let content = b"hello chunked world";
    let digest = Digest::sha256_of(content);
    let opened = server.ask(Method::POST, "/v2/m/blobs/uploads/", &[], b"").await;
    assert_eq!(opened.status(), StatusCode::ACCEPTED);
    let location = header(&opened, "location");

    let first = server.ask(Method::PATCH, &location, &[("content-range", "0-4")], &content[..5]).await;
    assert_eq!((first.status(), header(&first, "range")), (StatusCode::ACCEPTED, "0-4".to_owned()));
    for wrong in ["0-4", "6-9", "5-4", "nonsense", "5-7"] {
        let refused = server.ask(Method::PATCH, &location, &[("content-range", wrong)], b"12345").await;
        assert_eq!(header(&refused, "range"), "0-4", "{wrong}");
        assert_eq!(code(refused).await, (416, "BLOB_UPLOAD_INVALID".to_owned()), "{wrong}");
    }
    let status = server.get(&location).await;
    assert_eq!((status.status(), header(&status, "range")), (StatusCode::NO_CONTENT, "0-4".to_owned()));
    // Without a Content-Range the bytes are simply the next ones.
    let second = server.ask(Method::PATCH, &location, &[], &content[5..10]).await;
    assert_eq!(header(&second, "range"), "0-9");
    let closing = format!("{location}?digest={}", digest.to_string().replace(':', "%3A"));
    let closed = server.ask(Method::PUT, &closing, &[("content-range", "10-18")], &content[10..]).await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    assert_eq!(header(&closed, "docker-content-digest"), digest.to_string());
    let read = server.get(&header(&closed, "location")).await;
    assert_eq!(read.bytes().await.unwrap(), &content[..]);
    assert_eq!(code(server.get(&location).await).await, (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn an_upload_of_other_bytes_is_refused_and_one_can_be_cancelled() {
    let server = Server::start(Options::default()).await;
    let opened = server.ask(Method::POST, "/v2/m/blobs/uploads/", &[], b"").await;
    let location = header(&opened, "location");
    let digest = Digest::sha256_of(b"right");
    let refused = server.ask(Method::PUT, &format!("{location}?digest={digest}"), &[], b"wrong").await;
    assert_eq!(code(refused).await, (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(code(server.get(&format!("/v2/m/blobs/{digest}")).await).await, (404, "BLOB_UNKNOWN".to_owned()));

    let opened = server.ask(Method::POST, "/v2/m/blobs/uploads/", &[], b"").await;
    let location = header(&opened, "location");
    assert_eq!(code(server.ask(Method::PUT, &location, &[], b"x").await).await, (400, "DIGEST_INVALID".to_owned()));
    let elsewhere = location.replace("/v2/m/", "/v2/other/");
    assert_eq!(code(server.ask(Method::PATCH, &elsewhere, &[], b"x").await).await.1, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(server.ask(Method::DELETE, &location, &[], b"").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(code(server.ask(Method::DELETE, &location, &[], b"").await).await.1, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn blobs_are_read_in_ranges() {
    let server = Server::start(Options::default()).await;
    let blob = server.blob("m", b"0123456789").await;
    let path = format!("/v2/m/blobs/{}", blob.digest);
    let check = async |range: &str, status: u16, says: &str, body: &str| {
        let answer = server.ask(Method::GET, &path, &[("range", range)], b"").await;
        assert_eq!(answer.status(), status, "{range}");
        assert_eq!(header(&answer, "content-range"), says, "{range}");
        let found = answer.text().await.unwrap();
        assert!(status == 416 || found == body, "{range}: {found}");
    };
    check("bytes=0-3", 206, "bytes 0-3/10", "0123").await;
    check("bytes=8-", 206, "bytes 8-9/10", "89").await;
    check("bytes=-3", 206, "bytes 7-9/10", "789").await;
    check("bytes=5-1000", 206, "bytes 5-9/10", "56789").await;
    check("bytes=10-", 416, "bytes */10", "").await;
    check("bytes=0-1,3-4", 200, "", "0123456789").await;
    let head = server.ask(Method::HEAD, &path, &[], b"").await;
    assert_eq!((head.status().as_u16(), header(&head, "content-length").as_str()), (200, "10"));
    assert_eq!(header(&head, "docker-content-digest"), blob.digest.to_string());
    assert_eq!(header(&head, "docker-distribution-api-version"), "registry/2.0");
}

#[tokio::test]
async fn manifests_are_kept_byte_for_byte_and_only_with_their_parts() {
    let server = Server::start(Options::default()).await;
    let config = server.blob("m", b"{}").await;
    let absent = Descriptor::of(media_type::OCTET_STREAM, b"absent");
    let write = |layer: &Descriptor| {
        // Not canonical, on purpose.
        format!(
            "{{ \"schemaVersion\": 2,\n \"mediaType\": \"{}\", \"layers\": [{}], \"config\": {} }}\n",
            media_type::OCI_MANIFEST,
            serde_json::to_string(layer).unwrap(),
            serde_json::to_string(&config).unwrap()
        )
    };
    let typed: &[(&str, &str)] = &[("content-type", media_type::OCI_MANIFEST)];
    let put = async |path: &str, headers: &[(&str, &str)], body: &str| {
        server.ask(Method::PUT, path, headers, body.as_bytes()).await
    };
    let refused = put("/v2/m/manifests/v1", typed, &write(&absent)).await;
    assert_eq!(code(refused).await, (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    assert_eq!(code(server.get("/v2/m/manifests/v1").await).await, (404, "MANIFEST_UNKNOWN".to_owned()));

    let text = write(&server.blob("m", b"layer").await);
    let digest = Digest::sha256_of(text.as_bytes());
    let other = Digest::sha256_of(b"other");
    let refused = put(&format!("/v2/m/manifests/{other}"), typed, &text).await;
    assert_eq!(code(refused).await, (400, "DIGEST_INVALID".to_owned()));
    let stored = put("/v2/m/manifests/v1", typed, &text).await;
    assert_eq!(stored.status(), StatusCode::CREATED);
    assert_eq!(header(&stored, "docker-content-digest"), digest.to_string());
    for name in ["v1".to_owned(), digest.to_string()] {
        let found = server.ask(Method::GET, &format!("/v2/m/manifests/{name}"), &[("accept", "text/html")], b"").await;
        assert_eq!(header(&found, "content-type"), media_type::OCI_MANIFEST);
        assert_eq!(found.text().await.unwrap(), text);
    }
    // A blob is no manifest, whatever address it is asked at.
    let blob = server.get(&format!("/v2/m/manifests/{}", Digest::sha256_of(b"layer"))).await;
    assert_eq!(code(blob).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    for bad in ["", "[]", "{}", "{\"schemaVersion\":1}", "nonsense"] {
        assert_eq!(
            code(put("/v2/m/manifests/x", typed, bad).await).await,
            (400, "MANIFEST_INVALID".to_owned()),
            "{bad}"
        );
    }
    let large = " ".repeat((4 << 20) + 1);
    assert_eq!(put("/v2/m/manifests/x", typed, &large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);

    assert_eq!(server.ask(Method::DELETE, "/v2/m/manifests/v1", &[], b"").await.status(), StatusCode::ACCEPTED);
    assert_eq!(code(server.get("/v2/m/manifests/v1").await).await.1, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_blob_is_mounted_from_next_door() {
    let server = Server::start(Options::default()).await;
    let blob = server.blob("from/here", b"shared").await;
    let path = format!("/v2/to/there/blobs/uploads/?mount={}&from=from%2Fhere", blob.digest);
    let mounted = server.ask(Method::POST, &path, &[], b"").await;
    assert_eq!(mounted.status(), StatusCode::CREATED);
    assert_eq!(server.get(&header(&mounted, "location")).await.text().await.unwrap(), "shared");
    let unknown = format!("/v2/to/there/blobs/uploads/?mount={}&from=from/here", Digest::sha256_of(b"?"));
    let opened = server.ask(Method::POST, &unknown, &[], b"").await;
    assert_eq!(opened.status(), StatusCode::ACCEPTED);
    assert!(header(&opened, "location").starts_with("/v2/to/there/blobs/uploads/"));
}

#[tokio::test]
async fn tags_come_in_pages() {
    let server = Server::start(Options::default()).await;
    let source = Memory::default();
    let root = model(&source, 10);
    let there = server.repository("m");
    copy(&source, &there, &root, CopyOptions::default(), &Quiet).await.unwrap();
    for tag in ["b", "a", "d", "c"] {
        there.tag(&root, tag).await.unwrap();
    }
    let page = async |query: &str| {
        let answer = server.get(&format!("/v2/m/tags/list{query}")).await;
        let link = header(&answer, "link");
        let document: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (document["tags"].to_string(), link)
    };
    assert_eq!(page("").await, (r#"["a","b","c","d"]"#.to_owned(), String::new()));
    assert_eq!(
        page("?n=3").await,
        (r#"["a","b","c"]"#.to_owned(), "</v2/m/tags/list?n=3&last=c>; rel=\"next\"".to_owned())
    );
    assert_eq!(page("?n=3&last=c").await, (r#"["d"]"#.to_owned(), String::new()));
    assert_eq!(page("?n=0").await, ("[]".to_owned(), String::new()));
    assert_eq!(page("?last=aa").await.0, r#"["b","c","d"]"#);
    assert_eq!(code(server.get("/v2/m/tags/list?n=-1").await).await.0, 400);
    assert_eq!(code(server.get("/v2/absent/tags/list").await).await, (404, "NAME_UNKNOWN".to_owned()));
    assert_eq!(server.get("/v2/_catalog").await.text().await.unwrap(), r#"{"repositories":["m"]}"#);
    assert_eq!(server.get("/v2/").await.status(), StatusCode::OK);
    assert_eq!(code(server.get("/v2/UPPER/tags/list").await).await, (400, "NAME_INVALID".to_owned()));
    assert_eq!(code(server.ask(Method::PUT, "/v2/m/tags/list", &[], b"").await).await, (405, "UNSUPPORTED".to_owned()));
}

#[tokio::test]
async fn a_read_only_registry_and_a_web_page_change_nothing() {
    let server = Server::start(Options { read_only: true, ..Options::default() }).await;
    let refused = server.ask(Method::POST, "/v2/m/blobs/uploads/", &[], b"").await;
    assert_eq!(code(refused).await, (405, "UNSUPPORTED".to_owned()));
    assert_eq!(server.get("/v2/").await.status(), StatusCode::OK);

    let server = Server::start(Options::default()).await;
    for header in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let refused = server.ask(Method::POST, "/v2/m/blobs/uploads/", &[header], b"").await;
        assert_eq!(code(refused).await, (403, "DENIED".to_owned()), "{header:?}");
    }
}

#[tokio::test]
async fn what_is_about_a_manifest_is_listed() {
    let server = Server::start(Options::default()).await;
    let empty = server.blob("org/m", b"{}").await;
    let subject = Descriptor::of(media_type::OCI_MANIFEST, b"comes later, or never");
    let about = |artifact_type: &str, note: &str| {
        serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": artifact_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": empty.size, "digest": empty.digest},
            "layers": [], "subject": subject, "annotations": {"note": note},
        })
        .to_string()
    };
    let mut pushed = Vec::new();
    let large = "x".repeat(900 << 10);
    let [one, two, three] = [about("a/b+c", &large), about("a/b+c", &large), about("d/e", &format!("{large}.{large}"))];
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [], "artifactType": "a/b+c", "subject": subject,
    });
    for (document, kind) in
        [(one, "manifest"), (two + "\n", "manifest"), (three, "manifest"), (index.to_string(), "index")]
    {
        let digest = Digest::sha256_of(document.as_bytes());
        let path = format!("/v2/org/m/manifests/{digest}");
        let kind = format!("application/vnd.oci.image.{kind}.v1+json");
        let answer = server.ask(Method::PUT, &path, &[("content-type", &kind)], document.as_bytes()).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "oci-subject")), (201, subject.digest.to_string()));
        pushed.push(digest.to_string());
    }
    // Follows the pages of a list.
    let listed = async |filter: &str| {
        let mut path = format!("/v2/org/m/referrers/{}{filter}", subject.digest);
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let answer = server.get(&path).await;
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(header(&answer, "content-type"), media_type::OCI_INDEX);
            assert_eq!(header(&answer, "oci-filters-applied"), if filter.is_empty() { "" } else { "artifactType" });
            let link = header(&answer, "link");
            let content = answer.bytes().await.unwrap();
            assert!(content.len() < 4 << 20, "{}", content.len());
            let document: serde_json::Value = serde_json::from_slice(&content).unwrap();
            for one in document["manifests"].as_array().unwrap() {
                assert!(
                    one["artifactType"].is_string()
                        && (one["annotations"].is_object() || one["size"].as_u64() < Some(500))
                );
                found.push(one["digest"].as_str().unwrap().to_owned());
            }
            pages += 1;
            let Some((next, _)) = link.strip_prefix('<').and_then(|link| link.split_once('>')) else { break };
            path = next.to_owned();
        }
        (found, pages)
    };
    let mut all = pushed.clone();
    all.sort();
    let (found, pages) = listed("").await;
    assert_eq!(found, all);
    assert!(pages > 1, "4 MiB of annotations do not fit one index");
    let mut of_type = [&pushed[0], &pushed[1], &pushed[3]].map(Clone::clone).to_vec();
    of_type.sort();
    assert_eq!(listed("?artifactType=a%2Fb%2Bc").await.0, of_type);
    let answer = server.ask(Method::DELETE, &format!("/v2/org/m/manifests/{}", pushed[0]), &[], b"").await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert!(!listed("").await.0.contains(&pushed[0]));
    assert_eq!(server.get("/v2/org/m/referrers/sha256:nonsense").await.status(), StatusCode::BAD_REQUEST);
    let broken = serde_json::json!({"schemaVersion": 2, "manifests": [], "subject": {"digest": "x"}}).to_string();
    let answer = server.ask(Method::PUT, "/v2/org/m/manifests/t", &[], broken.as_bytes()).await;
    assert_eq!(code(answer).await, (400, "MANIFEST_INVALID".to_owned()));
}

#[tokio::test]
async fn a_protected_registry_answers_its_user_alone() {
    let server = Server::start(Options { account: Account::new("ada", "s3cret"), ..Options::default() }).await;
    let refused = server.get("/v2/").await;
    assert!(header(&refused, "www-authenticate").starts_with("Basic "));
    assert_eq!(code(refused).await, (401, "UNAUTHORIZED".to_owned()));
    let url = format!("http://{}/v2/", server.address);
    let ask = async |password: &str| {
        server.client.get(&url).basic_auth("ada", Some(password)).send().await.unwrap().status().as_u16()
    };
    assert_eq!((ask("s3cret").await, ask("other").await), (200, 401));
}

#[tokio::test]
async fn a_certificate_makes_it_https() {
    let folder = tempfile::tempdir().unwrap();
    let Some(authority) = server_certificate(folder.path()) else { return };
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(Tls::new(b"", &read("server.key")).is_err() && Tls::new(&read("server.pem"), b"").is_err());
    assert!(Tls::new(&read("server.pem"), &read("ca.key")).is_err(), "a key of another certificate");
    let tls = Tls::new(&read("server.pem"), &read("server.key")).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&authority).unwrap()]);
    let server = Server::start_with(Options::default(), Some(tls), client).await;
    // One that never speaks holds up nobody.
    let _silent = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    let blob = server.blob("org/m", b"secret").await;
    let answer = server.get(&format!("/v2/org/m/blobs/{}", blob.digest)).await;
    assert_eq!(answer.bytes().await.unwrap(), "secret");
}

#[tokio::test]
async fn a_blob_beyond_the_limit_is_refused() {
    let server = Server::start(Options { max_blob_bytes: 10, ..Options::default() }).await;
    server.blob("org/m", b"0123456789").await;
    let path = format!("/v2/org/m/blobs/uploads/?digest={}", Digest::sha256_of(b"0123456789a"));
    let answer = server.ask(Method::POST, &path, &[], b"0123456789a").await;
    assert_eq!(code(answer).await, (413, "SIZE_INVALID".to_owned()));
}
