//! `mlxctl ps`: the models in memory.

use crate::context::{Context, block_on};
use crate::daemon;
use crate::failure::Failure;
use crate::printer::{size, table};

/// List the models that the daemon has in memory.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the daemon's answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let running = block_on(async {
        match daemon::find(context).await {
            Some(client) => Ok(client.running().await?),
            None => Ok(mlxctl_api::ollama::Running::default()),
        }
    })?;
    if args.json {
        return context.printer.json(&running);
    }
    let mut rows = vec![["NAME", "DIGEST", "SIZE", "CONTEXT", "UNTIL"].map(str::to_owned).to_vec()];
    rows.extend(running.models.iter().map(|model| {
        vec![
            model.name.clone(),
            model.digest.chars().take(19).collect(),
            size(model.size),
            model.context_length.to_string(),
            model.expires_at.clone(),
        ]
    }));
    context.printer.result(table(&rows))
}
