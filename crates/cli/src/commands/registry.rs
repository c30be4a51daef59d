//! `mlxctl registry serve`: the store as a registry.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use mlxctl_content::{Error, Repository};
use mlxctl_registry_server::{Options, Repositories, router, serve};
use mlxctl_store::Store;

use crate::context::{Context, block_on};
use crate::failure::Failure;

/// The embedded registry.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Serve the local store as an OCI registry until Ctrl-C; prints its address.
    ///
    /// Example: mlxctl registry serve --listen 127.0.0.1:5000
    Serve {
        /// Address and port; port 0 is any free one.
        #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS")]
        listen: SocketAddr,

        /// Refuse pushes and deletes.
        #[arg(long)]
        read_only: bool,

        /// Allow pushes from other machines; without it, a registry that others reach is read-only.
        #[arg(long, conflicts_with = "read_only")]
        writable: bool,
    },
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let Action::Serve { listen, read_only, writable } = &args.action;
    let store = context.store()?;
    let read_only = *read_only || (!listen.ip().is_loopback() && !writable) || store.is_read_only();
    let router = router(Arc::new(OfStore { store, open: Mutex::default() }), Options { read_only });
    block_on(async {
        let wrong = |error: std::io::Error| Failure::new(format!("cannot listen on {listen}: {error}"));
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        context.printer.result(format!("http://{address}"))?;
        context.printer.note(format!(
            "serving {} {}; Ctrl-C ends it",
            context.settings.store().display(),
            if read_only { "read-only" } else { "for pull and push" }
        ));
        serve(listener, router, async {
            // Without a signal handler there is nothing to wait for but the end of the process.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await
        .map_err(|error| Failure::new(format!("the registry stopped: {error}")))
    })
}

/// The repositories that are kept open at the most; who asks for more names loses the leases of an unfinished push.
const MAX_OPEN: usize = 1024;

/// The store's repositories, as the registry asks for them. A push is many requests, and its repository holds the
/// lease on the blobs that no manifest names yet: so a repository stays open.
struct OfStore {
    store: Store,
    open: Mutex<HashMap<String, Arc<dyn Repository>>>,
}

#[async_trait::async_trait]
impl Repositories for OfStore {
    fn repository(&self, name: &str) -> Result<Arc<dyn Repository>, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = open.get(name) {
            return Ok(repository.clone());
        }
        if open.len() >= MAX_OPEN {
            open.clear();
        }
        let repository: Arc<dyn Repository> = Arc::new(self.store.repository(name).map_err(Error::from)?);
        open.insert(name.to_owned(), repository.clone());
        Ok(repository)
    }

    async fn names(&self) -> Result<Vec<String>, Error> {
        self.store.repositories().map_err(Error::from)
    }
}
