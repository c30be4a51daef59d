//! Where connections come from: TCP, with TLS where there is a certificate. A connection that says nothing for long
//! is dropped, and there is a bound on how many are open, so that nobody can hold the registry by holding still.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Connections that are open at once; more wait.
const MAX_CONNECTIONS: usize = 512;
/// How long a connection may be silent in both directions.
const SILENCE_LIMIT: Duration = Duration::from_mins(5);
/// How long a client may take for its part of TLS's handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait where the system gives no more connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A certificate with its key, for [`crate::Listener::with_tls`].
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// A server's certificate, followed by those between it and the authority, and its key, both in PEM form.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the certificate is no PEM: {error}"))?;
        if chain.is_empty() {
            return Err("the certificate's file holds none ('-----BEGIN CERTIFICATE-----')".to_owned());
        }
        // The parser's message does not quote the key.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "the key's file holds no unencrypted private key in PEM form".to_owned())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| format!("the certificate cannot be used with this key: {error}"))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// What [`crate::serve`] accepts connections from.
pub struct Listener {
    address: SocketAddr,
    accepted: mpsc::Receiver<(Connection, SocketAddr)>,
    _accepting: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Listener {
    /// Plain HTTP.
    ///
    /// # Errors
    /// The listener's.
    pub fn plain(listener: TcpListener) -> io::Result<Self> {
        Self::start(listener, None)
    }

    /// HTTP over TLS.
    ///
    /// # Errors
    /// The listener's.
    pub fn with_tls(listener: TcpListener, tls: Tls) -> io::Result<Self> {
        Self::start(listener, Some(tls))
    }

    fn start(listener: TcpListener, tls: Option<Tls>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, tls, sender));
        Ok(Self { address, accepted, _accepting: AbortOnDrop(accepting) })
    }
}

/// Accepts without an end; handshakes happen side by side, so that a slow client holds up none but itself.
async fn accept(listener: TcpListener, tls: Option<Tls>, sender: mpsc::Sender<(Connection, SocketAddr)>) {
    let open = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&open).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small answers may wait");
        }
        let (tls, sender) = (tls.clone(), sender.clone());
        tokio::spawn(async move {
            let stream = match tls {
                None => Stream::Plain(stream),
                Some(tls) => match tokio::time::timeout(HANDSHAKE_LIMIT, tls.0.accept(stream)).await {
                    Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                    Ok(Err(error)) => return tracing::debug!(%peer, %error, "no TLS with a client"),
                    Err(_) => return tracing::debug!(%peer, "a client was too slow to agree on TLS"),
                },
            };
            let silence = Box::pin(sleep(SILENCE_LIMIT));
            // Fails where the registry ends just now.
            let _ = sender.send((Connection { stream, silence, _permit: permit }, peer)).await;
        });
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends with the listener alone.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One connection.
pub struct Connection {
    stream: Stream,
    silence: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// What an operation answers: its own word, or an error where the connection was silent for too long.
    fn watched<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE_LIMIT);
            return polled;
        }
        match self.silence.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

macro_rules! through {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.stream {
            Stream::Plain($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = through!(self, stream => Pin::new(stream).poll_read(context, buffer));
        self.watched(context, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = through!(self, stream => Pin::new(stream).poll_write(context, bytes));
        self.watched(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = through!(self, stream => Pin::new(stream).poll_write_vectored(context, bytes));
        self.watched(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        through!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        through!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}
