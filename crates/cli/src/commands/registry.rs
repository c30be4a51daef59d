//! `mlxctl registry serve`: the store as a registry.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mlxctl_content::{Error, Repository};
use mlxctl_registry_server::{Account, Listener, Options, Repositories, Tls, router, serve};
use mlxctl_store::Store;

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::remote;

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
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    /// Address and port; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Refuse pushes and deletes.
    #[arg(long)]
    read_only: bool,

    /// Allow pushes from other machines; without it, a registry that others reach is read-only.
    #[arg(long, conflicts_with = "read_only")]
    writable: bool,

    /// Ask everyone for this user's name and the password.
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    user: Option<String>,

    /// Read the password from the first line of stdin.
    #[arg(long, requires = "user")]
    password_stdin: bool,

    /// Speak https with this certificate and those between it and its authority (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let Action::Serve(args) = &args.action;
    let store = context.store()?;
    let is_local = args.listen.ip().is_loopback();
    let read_only = args.read_only || (!is_local && !args.writable) || store.is_read_only();
    let account = account(args)?;
    let tls = tls(args)?;
    if account.is_some() && tls.is_none() && !is_local {
        context.printer.note("note: without --tls-cert the password travels in the clear");
    }
    let options = Options { read_only, account, ..Options::default() };
    let router = router(Arc::new(OfStore { store, open: Mutex::default() }), options);
    block_on(async {
        let wrong = |error: std::io::Error| Failure::new(format!("cannot listen on {}: {error}", args.listen));
        let socket = tokio::net::TcpListener::bind(args.listen).await.map_err(wrong)?;
        let address = socket.local_addr().map_err(wrong)?;
        let (scheme, listener) = match tls {
            Some(tls) => ("https", Listener::with_tls(socket, tls)),
            None => ("http", Listener::plain(socket)),
        };
        let listener = listener.map_err(wrong)?;
        context.printer.result(format!("{scheme}://{address}"))?;
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

fn account(args: &Serve) -> Result<Option<Account>, Failure> {
    let Some(user) = &args.user else { return Ok(None) };
    let password = remote::password_from_stdin()?;
    let account = Account::new(user, password.reveal());
    account.map(Some).ok_or_else(|| Failure::wrong("--user is a name without ':'"))
}

fn tls(args: &Serve) -> Result<Option<Tls>, Failure> {
    let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) else { return Ok(None) };
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|error| Failure::wrong(format!("{}: {error}", path.display())));
    Tls::new(&read(certificate)?, &read(key)?).map(Some).map_err(Failure::wrong)
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
