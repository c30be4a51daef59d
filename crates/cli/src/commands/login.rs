//! `mlxctl login`: credentials are shown to a registry first, and kept when it took them.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use mlxctl_registry::{Credential, DockerConfig, Keeper, Login, Registry, Static};

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::progress::Transfers;
use crate::remote;

/// Log in to a registry. The credentials are kept where Docker keeps its own.
///
/// Example: mlxctl login ghcr.io -u ada --password-stdin < token.txt
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The registry: a host with an optional port.
    #[arg(value_name = "REGISTRY")]
    registry: String,

    /// The user's name; '<token>' says that the password is an identity token. Asked for where it is left out.
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,

    /// Read the password from the first line of stdin; without it, the terminal is asked.
    #[arg(long, requires = "username")]
    password_stdin: bool,

    #[command(flatten)]
    remote: remote::Flags,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let registry = remote::registry_name(&args.registry)?;
    let path = context.settings.docker_config.as_ref();
    let path =
        path.ok_or_else(|| Failure::wrong("there is no home folder to keep credentials in").hint("set DOCKER_CONFIG"))?;
    let (user, password) = match (&args.username, args.password_stdin) {
        (Some(user), true) => (user.clone(), remote::password_from_stdin()?),
        (user, _) => ask(&registry, user.as_deref())?,
    };
    let credential =
        if user == "<token>" { Credential::IdentityToken(password) } else { Credential::Basic { user, password } };
    let observer = Arc::new(Transfers::new(&context.printer));
    let mut options = remote::options(context, &args.remote, observer)?;
    options.credentials = Arc::new(Static { registry: registry.clone(), credential: credential.clone() });
    let keeper = block_on(async {
        let login = Registry::new(&registry, &options)?.check_login().await?;
        if login == Login::NotAsked {
            context.printer.note(format!("note: {registry} asks nobody who they are; the password was not checked"));
        }
        Ok(DockerConfig::new(path).store(&registry, &credential).await?)
    })?;
    let place = match keeper {
        Keeper::Helper(name) => format!("by {name}"),
        Keeper::File(path) => format!("in {}, readable by you alone and not encrypted", path.display()),
    };
    context.printer.note(format!("logged in to {registry}; the credentials are kept {place}"));
    Ok(())
}

/// Asks the person. What is typed as password is not shown.
fn ask(registry: &str, user: Option<&str>) -> Result<(String, mlxctl_registry::Secret), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::wrong("there is no terminal to ask for a password")
            .hint("give -u and --password-stdin, and the password on stdin"));
    }
    let prompt = |text: &str| {
        eprint!("{text}: ");
        // A prompt that cannot be shown is missed, not more.
        let _ = std::io::stderr().flush();
    };
    let user = if let Some(user) = user {
        user.to_owned()
    } else {
        prompt(&format!("user name at {registry}"));
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(|error| Failure::wrong(format!("stdin: {error}")))?;
        line.trim().to_owned()
    };
    if user.is_empty() {
        return Err(Failure::wrong("a user's name is needed"));
    }
    prompt("password");
    let password = remote::without_echo(remote::password_from_stdin);
    eprintln!();
    Ok((user, password?))
}
