//! `mlxctl convert`: an artifact of archives, as KitOps makes them, becomes one of raw files with a name of its own.

use mlxctl_artifact::Reference;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Listed;
use crate::packed;

/// Take the archives of an artifact apart and keep the raw files under a name of their own.
///
/// `pull` and `import` do the same by themselves for the runtime; this gives the result a name, to push it or to build
/// upon it.
///
/// Example: mlxctl convert ghcr.io/org/modelkit:1 modelkit:1
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact in the store.
    #[arg(value_name = "REF")]
    source: Reference,

    /// Its new name; default: REF without its registry.
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,

    /// Print {name, digest, size} as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let name = match &args.name {
        Some(name) if name.digest().is_some() => {
            return Err(Failure::wrong(format!("{name}: the digest comes from the content, it cannot be chosen")));
        }
        Some(name) => name.with_tag(name.tag_or_latest())?,
        None if args.source.registry().is_some() => {
            Reference::local(args.source.repository(), Some(args.source.tag_or_latest()))?
        }
        None => {
            return Err(Failure::wrong(format!("{} is a local name already", args.source))
                .hint("give the result a name of its own after it"));
        }
    };
    let store = context.store()?;
    let source = store.resolve(&args.source)?;
    let _in_use = store.lease(&[source.digest])?;
    let made = packed::raw(context, &store, &source)?;
    if made.digest == source.digest {
        context.printer.note(format!("note: {} holds raw files already", args.source));
    }
    store.tag(&name, &made)?;
    if args.json {
        let size = super::list::total(&store.manifest(&made)?.1);
        return context.printer.json(&Listed { name: name.to_string(), digest: made.digest.to_string(), size });
    }
    context.printer.result(name.at(made.digest))
}
