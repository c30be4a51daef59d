//! A proxy before a registry that misbehaves by a seed: the same seed misbehaves in the same way, as far as requests
//! come in the same order.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};

/// What went wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 429 with `Retry-After: 0`.
    TooMany,
    /// 500, 502 or 503 without asking the registry.
    Unavailable,
    /// The connection is cut after some bytes of the body, of the request's or of the answer's.
    Cut,
    /// Nothing more comes after some bytes of the body.
    Stall,
    /// A bit of the answer's body is another one.
    Flip,
    /// Two parts of the answer's body change places.
    Reorder,
    /// The registry did what was asked, and its answer is lost.
    LostAnswer,
}

const FAULTS: [Fault; 7] =
    [Fault::TooMany, Fault::Unavailable, Fault::Cut, Fault::Stall, Fault::Flip, Fault::Reorder, Fault::LostAnswer];

/// How a registry behind the proxy differs from the specification all the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quirks {
    /// Answers with the whole blob where a range is asked for.
    pub ignores_ranges: bool,
    /// 201 to a PATCH.
    pub created_for_chunks: bool,
    /// 416 to chunks above this many bytes.
    pub largest_chunk: Option<u64>,
    /// No `Location` in the answer to a chunk.
    pub drops_location: bool,
    /// A token is good for this many requests.
    pub token_uses: Option<u32>,
}

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which is at least one.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// Whether an event of one in `count` happens.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

impl Quirks {
    /// Those of a seed: most registries have none.
    pub fn of(seed: u64) -> Self {
        let mut random = Seeded::new(seed ^ 0x5eed);
        Self {
            ignores_ranges: random.one_in(6),
            created_for_chunks: random.one_in(6),
            largest_chunk: random.one_in(6).then_some(50_000),
            drops_location: random.one_in(6),
            token_uses: random.one_in(4).then(|| 3 + random.below(20) as u32),
        }
    }
}

struct State {
    random: Seeded,
    /// Faults that are still to come.
    left: u32,
    /// One request in so many goes wrong.
    one_in: u64,
    /// How often each token was shown.
    uses: Vec<u32>,
    happened: Vec<Fault>,
    /// Bytes of bodies that passed, both ways.
    moved: u64,
}

/// The proxy; it ends with the runtime it was started in.
pub struct FaultyRegistry {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct Proxy {
    target: String,
    own: String,
    quirks: Quirks,
    client: reqwest::Client,
    state: Arc<Mutex<State>>,
}

impl FaultyRegistry {
    /// Starts before the registry at `target`, `host:port`. One request in `one_in` goes wrong, until `faults` have.
    ///
    /// # Panics
    /// Where no loopback port can be had, or the process has no TLS provider.
    pub async fn start(target: &str, seed: u64, quirks: Quirks, one_in: u64, faults: u32) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound port has an address").to_string();
        let random = Seeded::new(seed);
        let state = State { random, left: faults, one_in, uses: Vec::new(), happened: Vec::new(), moved: 0 };
        let state = Arc::new(Mutex::new(state));
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let proxy =
            Proxy { target: target.to_owned(), own: address.clone(), quirks, client, state: Arc::clone(&state) };
        let router = Router::new().fallback(move |request: Request| {
            let proxy = proxy.clone();
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, state }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went wrong so far.
    pub fn happened(&self) -> Vec<Fault> {
        self.state().happened.clone()
    }

    /// Bytes of bodies that passed so far, both ways.
    pub fn moved(&self) -> u64 {
        self.state().moved
    }

    /// From now on nothing goes wrong but the quirks.
    pub fn calm(&self) {
        self.state().left = 0;
    }
}

fn plain(status: u16) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

impl Proxy {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        if path == "/token" {
            let mut state = self.state();
            state.uses.push(0);
            let number = state.uses.len() - 1;
            return Response::new(Body::from(format!("{{\"token\":\"{number}\",\"expires_in\":3600}}")));
        }
        if !self.admits(request.headers()) {
            let mut refused = plain(401);
            let challenge = format!("Bearer realm=\"http://{}/token\",service=\"faulty\"", self.own);
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                refused.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            return refused;
        }
        let (fault, number) = self.fault();
        match fault {
            Some(Fault::TooMany) => {
                let mut refused = plain(429);
                refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
                return refused;
            }
            Some(Fault::Unavailable) => return plain([500, 502, 503][(number % 3) as usize]),
            _ => {}
        }
        self.forward(request, fault, number).await
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(most) = self.quirks.token_uses else { return true };
        let shown = headers.get(header::AUTHORIZATION).and_then(|shown| shown.to_str().ok()?.strip_prefix("Bearer "));
        let number = shown.and_then(|shown| shown.parse::<usize>().ok());
        let mut state = self.state();
        let Some(uses) = number.and_then(|number| state.uses.get_mut(number)) else { return false };
        *uses += 1;
        *uses <= most
    }

    /// What goes wrong with this request, and a number that tells how.
    fn fault(&self) -> (Option<Fault>, u64) {
        let mut state = self.state();
        let one_in = state.one_in;
        let number = state.random.below(u64::MAX);
        if state.left == 0 || !state.random.one_in(one_in) {
            return (None, number);
        }
        let fault = FAULTS[state.random.below(FAULTS.len() as u64) as usize];
        state.left -= 1;
        state.happened.push(fault);
        (Some(fault), number)
    }

    async fn forward(&self, request: Request, fault: Option<Fault>, number: u64) -> Response {
        let (head, body) = request.into_parts();
        let is_chunk = head.method == Method::PATCH;
        let Ok(mut body) = to_bytes(body, 64 << 20).await else { return plain(400) };
        self.state().moved += body.len() as u64;
        if is_chunk && self.quirks.largest_chunk.is_some_and(|most| body.len() as u64 > most) {
            return plain(416);
        }
        let changes = head.method != Method::GET && head.method != Method::HEAD;
        let mut headers = head.headers.clone();
        if changes && matches!(fault, Some(Fault::Cut | Fault::Stall)) && !body.is_empty() {
            // What came before the cut is all that the registry sees: it keeps what it can of a chunk.
            body.truncate((number % body.len() as u64) as usize);
            headers.remove(header::CONTENT_LENGTH);
            headers.remove(header::CONTENT_RANGE);
            if head.method == Method::PATCH {
                let _ = self.pass(&head.method, &head.uri.to_string(), headers, body).await;
            }
            if fault == Some(Fault::Stall) {
                std::future::pending::<()>().await;
            }
            return plain(502);
        }
        if self.quirks.ignores_ranges {
            headers.remove(header::RANGE);
        }
        let Some(answer) = self.pass(&head.method, &head.uri.to_string(), headers, body).await else {
            return plain(502);
        };
        if changes && fault == Some(Fault::LostAnswer) {
            return plain(504);
        }
        self.give(answer, is_chunk, fault.filter(|_| head.method == Method::GET), number).await
    }

    async fn pass(&self, method: &Method, uri: &str, mut headers: HeaderMap, body: Bytes) -> Option<reqwest::Response> {
        headers.remove(header::HOST);
        headers.remove(header::AUTHORIZATION);
        let request = self.client.request(method.clone(), format!("http://{}{uri}", self.target)).headers(headers);
        request.body(body).send().await.ok()
    }

    /// The registry's answer, with what goes wrong on its way.
    async fn give(&self, answer: reqwest::Response, is_chunk: bool, fault: Option<Fault>, number: u64) -> Response {
        let mut given = plain(answer.status().as_u16());
        for (name, value) in answer.headers() {
            let is_hop = name == header::CONNECTION || name == header::TRANSFER_ENCODING;
            let is_dropped = is_chunk && self.quirks.drops_location && name == header::LOCATION;
            if !is_hop && !is_dropped {
                given.headers_mut().append(HeaderName::clone(name), value.clone());
            }
        }
        if is_chunk && self.quirks.created_for_chunks && given.status() == StatusCode::ACCEPTED {
            *given.status_mut() = StatusCode::CREATED;
        }
        let mut body = answer.bytes().await.unwrap_or_default().to_vec();
        self.state().moved += body.len() as u64;
        let at = if body.is_empty() { 0 } else { (number % body.len() as u64) as usize };
        match fault {
            Some(Fault::Flip) if !body.is_empty() => body[at] ^= 1 << (number % 8),
            Some(Fault::Reorder) if !body.is_empty() => body.rotate_left(at),
            Some(Fault::Cut | Fault::Stall) if !body.is_empty() => {
                body.truncate(at);
                let stalls = fault == Some(Fault::Stall);
                let rest = stream::once(async move {
                    if stalls {
                        tokio::time::sleep(Duration::from_hours(1)).await;
                    }
                    Err(std::io::Error::other("cut"))
                });
                let pieces = stream::iter([Ok(Bytes::from(body))]).chain(rest);
                *given.body_mut() = Body::from_stream(pieces);
                return given;
            }
            _ => {}
        }
        if !body.is_empty() {
            *given.body_mut() = Body::from(body);
        }
        given
    }
}
