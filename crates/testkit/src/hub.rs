//! A server with the hub's API over files in memory: revisions, trees in pages, downloads that redirect to another
//! address, ranges, tokens; and the ways in which the real one fails, on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_RANGE, LINK, LOCATION, RANGE};
use axum::http::{Response, StatusCode};
use futures_util::{StreamExt as _, stream};
use mlxctl_artifact::Digest;
use serde_json::{Value, json};
use sha1::Digest as _;

/// Files a page of a tree lists.
const PAGE: usize = 3;

/// What the server has and how it behaves; tests change it while it runs.
#[derive(Default)]
pub struct HubState {
    /// Branches and tags, by `repository@revision`.
    pub revisions: BTreeMap<String, String>,
    /// Files by `repository@commit`: path, bytes, whether they lie outside git (LFS).
    pub trees: BTreeMap<String, Vec<(String, Bytes, bool)>>,
    /// Answers 401 without this token.
    pub token: Option<String>,
    /// The next downloads end after so many bytes, first one first.
    pub cuts: Vec<usize>,
    /// The next answers are these statuses.
    pub failures: Vec<u16>,
    /// Downloads answer 200 from the beginning whatever the range.
    pub ignores_ranges: bool,
    /// Bytes of a path that come instead of those that are listed.
    pub flipped: Option<String>,
    /// Requests that came: method-less, path and range.
    pub seen: Vec<String>,
    /// Bytes of files that were sent.
    pub sent: usize,
    cdn: String,
}

/// A running server; it ends with the process.
pub struct HubServer {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    state: Arc<Mutex<HubState>>,
}

impl HubServer {
    /// Starts it with nothing in it.
    ///
    /// # Panics
    /// Where no loopback port can be had.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(HubState::default()));
        // Files come from another address, as the hub's do.
        let cdn = serve(Router::new().fallback(file).with_state(state.clone()));
        state.lock().unwrap_or_else(PoisonError::into_inner).cdn = cdn;
        let endpoint = serve(Router::new().fallback(api).with_state(state.clone()));
        Self { endpoint, state }
    }

    /// Looks at or changes the state.
    pub fn with<T>(&self, change: impl FnOnce(&mut HubState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a commit and points a branch to it; gives the commit.
    pub fn commit(&self, repository: &str, branch: &str, files: &[(&str, &[u8], bool)]) -> String {
        let files: Vec<_> =
            files.iter().map(|(path, bytes, lfs)| ((*path).to_owned(), Bytes::copy_from_slice(bytes), *lfs)).collect();
        let mut hash = sha1::Sha1::new();
        for (path, bytes, _) in &files {
            hash.update(path);
            hash.update(bytes);
        }
        let commit = hex(&hash.finalize());
        self.with(|state| {
            state.trees.insert(format!("{repository}@{commit}"), files);
            state.revisions.insert(format!("{repository}@{branch}"), commit.clone());
        });
        commit
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Serves on a loopback port, on a thread of its own.
fn serve(router: Router) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    let address = listener.local_addr().expect("a bound port has an address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the socket is non-blocking");
            axum::serve(listener, router).await.expect("the server runs");
        });
    });
    format!("http://{address}")
}

fn answer(status: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(body.into()).expect("a status and a body make an answer")
}

async fn api(State(state): State<Arc<Mutex<HubState>>>, request: Request) -> Response<Body> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    state.seen.push(path.clone());
    if let Some(status) = (!state.failures.is_empty()).then(|| state.failures.remove(0)) {
        return answer(status, "");
    }
    let shown = request.headers().get(AUTHORIZATION).and_then(|shown| shown.to_str().ok()).unwrap_or_default();
    if state.token.as_ref().is_some_and(|token| shown != format!("Bearer {token}")) {
        let mut refused = answer(401, "");
        let reason = "Access to model is restricted".parse().expect("a header");
        refused.headers_mut().insert("x-error-message", reason);
        return refused;
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match &parts[..] {
        ["api", "models", owner, name, "revision", revision] => {
            let revision = revision.replace("%2F", "/");
            let known = format!("{owner}/{name}@{revision}");
            let commit = state.revisions.get(&known).cloned();
            let commit = commit.or_else(|| state.trees.contains_key(&known).then(|| revision.clone()));
            commit.map_or_else(|| answer(404, ""), |commit| answer(200, json!({"sha": commit}).to_string()))
        }
        ["api", "models", owner, name, "tree", commit] => {
            let Some(files) = state.trees.get(&format!("{owner}/{name}@{commit}")) else { return answer(404, "") };
            let cursor = query.split('&').find_map(|pair| pair.strip_prefix("cursor=")?.parse().ok()).unwrap_or(0);
            let page: Vec<Value> = files.iter().skip(cursor).take(PAGE).map(entry).collect();
            let mut found = answer(200, Value::Array(page).to_string());
            if cursor + PAGE < files.len() {
                let next = format!("<{path}?recursive=true&cursor={}>; rel=\"next\"", cursor + PAGE);
                found.headers_mut().insert(LINK, next.parse().expect("a header"));
            }
            found
        }
        [owner, name, "resolve", commit, ..] => {
            let mut found = answer(302, "");
            let target = format!("{}{path}?signature=secret", state.cdn);
            found.headers_mut().insert(LOCATION, target.parse().expect("a header"));
            found.headers_mut().insert("x-repo-commit", commit.parse().expect("a header"));
            if state.trees.contains_key(&format!("{owner}/{name}@{commit}")) { found } else { answer(404, "") }
        }
        _ => answer(404, ""),
    }
}

fn entry((path, bytes, lfs): &(String, Bytes, bool)) -> Value {
    let mut git = sha1::Sha1::new();
    git.update(format!("blob {}\0", bytes.len()));
    git.update(bytes);
    let mut entry = json!({"type": "file", "path": path, "size": bytes.len(), "oid": hex(&git.finalize())});
    if *lfs {
        let digest = Digest::sha256_of(bytes).hex();
        entry["lfs"] = json!({"oid": digest, "size": bytes.len(), "pointerSize": 134});
    }
    entry
}

async fn file(State(state): State<Arc<Mutex<HubState>>>, request: Request) -> Response<Body> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let path = request.uri().path().replace("%20", " ");
    if request.headers().contains_key(AUTHORIZATION) {
        // A credential that reached another address is a test's failure.
        return answer(418, "");
    }
    let parts: Vec<&str> = path.trim_matches('/').splitn(5, '/').collect();
    let [owner, name, "resolve", commit, within] = &parts[..] else { return answer(404, "") };
    let tree = state.trees.get(&format!("{owner}/{name}@{commit}"));
    let Some(bytes) = tree.and_then(|files| files.iter().find(|(path, ..)| path == within)) else {
        return answer(404, "");
    };
    let mut bytes = bytes.1.clone();
    if state.flipped.as_deref() == Some(*within) {
        let mut other = bytes.to_vec();
        other[0] ^= 1;
        bytes = other.into();
    }
    let length = bytes.len();
    let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok()).filter(|_| !state.ignores_ranges);
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse::<usize>().ok());
    state.seen.push(format!("{within} from {}", from.unwrap_or(0)));
    let mut builder = Response::builder().status(StatusCode::OK);
    if let Some(from) = from {
        if from >= length {
            return answer(416, "");
        }
        let header = format!("bytes {from}-{}/{length}", length - 1);
        builder = builder.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, header);
        bytes = bytes.slice(from..);
    }
    let cut = (!state.cuts.is_empty() && bytes.len() > 1000).then(|| state.cuts.remove(0));
    state.sent += cut.unwrap_or(bytes.len()).min(bytes.len());
    let body = match cut {
        None => Body::from(bytes),
        Some(cut) => {
            let first: Result<Bytes, std::io::Error> = Ok(bytes.slice(..cut.min(bytes.len())));
            // The connection sends what it has while this waits for its turn.
            let broken = async {
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
                Err(std::io::Error::other("cut"))
            };
            Body::from_stream(stream::iter([first]).chain(stream::once(broken)))
        }
    };
    builder.body(body).expect("a status and a body make an answer")
}
