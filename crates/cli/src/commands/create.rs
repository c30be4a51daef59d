//! `mlxctl create`: a recipe becomes an artifact in the store.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use mlxctl_artifact::Reference;
use mlxctl_builder::{BuildOptions, build_with};
use mlxctl_modelspec::ModelSpec;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Created, Layer};
use crate::progress::Build;
use crate::sources::{Pinning, Sources};

/// Build a recipe into the store and print NAME:TAG@DIGEST.
///
/// Example: mlxctl create -f ModelSpec.yaml
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A local name for the artifact instead of the recipe's; it never enters the artifact.
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,

    /// The recipe.
    #[arg(short, long, value_name = "ModelSpec.yaml")]
    file: PathBuf,

    /// Refuse to build from anything that ModelSpec.lock does not pin, or that is not what it pins.
    #[arg(long)]
    locked: bool,

    /// Look up branches, tags and artifacts anew, and write ModelSpec.lock.
    #[arg(long, conflicts_with = "locked")]
    update: bool,

    /// Push the artifact there once it is built.
    #[arg(long, value_name = "REF")]
    push: Option<Reference>,

    /// Print {name, digest, size, layers} as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: crate::remote::Flags,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let spec = read_recipe(&args.file)?;
    let name = local_name(&spec, args.name.as_ref())?;
    let store = context.store()?;
    let progress = Build::new(&context.printer);
    let folder = args.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let threads = context.settings.threads.and_then(NonZeroUsize::new);
    let threads = threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let pinning = if args.locked { Pinning::Locked } else { Pinning::Kept { update: args.update } };
    let materials =
        Sources { context, flags: &args.remote, store: &store, recipe: &args.file }.bring(&spec, pinning)?;
    let built = build_with(&spec, &materials, &store, &BuildOptions { folder, threads, progress: &progress })?;
    progress.finish();
    store.tag(&name, &built.manifest)?;
    if let Some(target) = &args.push {
        super::push::push(context, &args.remote, &name, target)?;
    }
    if args.json {
        let layers = built.layers.iter().map(Layer::of).collect();
        return context.printer.json(&Created {
            name: name.to_string(),
            digest: built.manifest.digest.to_string(),
            size: built.size(),
            layers,
        });
    }
    context.printer.result(format!("{name}@{}", built.manifest.digest))
}

/// Reads and checks a recipe.
pub(crate) fn read_recipe(path: &Path) -> Result<ModelSpec, Failure> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|error| Failure::wrong(format!("{shown}: {error}")))?.len();
    if size > mlxctl_modelspec::MAX_RECIPE_BYTES as u64 {
        let limit = mlxctl_modelspec::MAX_RECIPE_BYTES;
        return Err(Failure::wrong(format!("{shown}: it has {size} bytes, and a recipe has at most {limit}")));
    }
    let bytes = std::fs::read(path).map_err(|error| Failure::wrong(format!("{shown}: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::wrong(format!("{shown}: byte {at} is not UTF-8")).hint("save the recipe as UTF-8")
    })?;
    Ok(mlxctl_modelspec::parse(&text, &shown.to_string())?)
}

/// The name under which the artifact is kept: given, or the recipe's; the tag given, else the recipe's version.
fn local_name(spec: &ModelSpec, given: Option<&Reference>) -> Result<Reference, Failure> {
    let tag = spec.version.as_deref().unwrap_or(mlxctl_artifact::LATEST);
    match given {
        Some(name) if name.digest().is_some() => {
            Err(Failure::wrong(format!("{name}: the digest comes from the content, it cannot be chosen")))
        }
        Some(name) if name.tag().is_some() => Ok(name.clone()),
        Some(name) => Ok(name.with_tag(tag)?),
        None => Ok(Reference::local(&spec.name, Some(tag))?),
    }
}
