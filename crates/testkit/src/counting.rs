//! A way to a server that counts the bytes that come back: how a test sees that something was not fetched twice.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Forwards connections on a loopback port of its own to another one.
pub struct CountingProxy {
    address: String,
    answered: Arc<AtomicU64>,
}

impl CountingProxy {
    /// Starts forwarding to `target`, `host:port`. It ends with the process.
    ///
    /// # Panics
    /// Where no loopback port can be had.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("a bound port has an address").to_string();
        let answered = Arc::new(AtomicU64::new(0));
        let (target, counter) = (target.to_owned(), answered.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { continue };
                let counter = counter.clone();
                thread::spawn(move || forward(from_client, to_server, &AtomicU64::new(0)));
                thread::spawn(move || forward(server, client, &counter));
            }
        });
        Self { address, answered }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Bytes that the server has sent so far, over all connections.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        counter.fetch_add(length as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}
