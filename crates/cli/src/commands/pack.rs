//! `mlxctl pack`: an artifact leaves the store as files that any OCI tool reads.

use std::path::PathBuf;
use std::sync::Arc;

use mlxctl_artifact::Reference;
use mlxctl_content::{CopyOptions, copy};
use mlxctl_layout::{LayoutFolder, write_archive};

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::output::Packed;
use crate::progress::Transfers;

/// Write an artifact, its draft and its adapters as an OCI image layout: a folder, or a tar where PATH ends in .tar.
///
/// Example: mlxctl pack pebble:1.0.0 -o pebble.tar
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact in the store.
    #[arg(value_name = "REF")]
    name: Reference,

    /// Where to: a folder (a layout that lies there is added to) or a file that ends in .tar.
    #[arg(short, long, value_name = "PATH[.tar]")]
    output: PathBuf,

    /// What is written.
    #[arg(long, value_enum, default_value_t = Format::Layout)]
    format: Format,

    /// Print {name, digest, path} as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// An OCI image layout.
    Layout,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let Format::Layout = args.format;
    let store = context.store()?;
    let root = store.resolve(&args.name)?;
    let _in_use = store.lease(&[root.digest])?;
    let observer = Arc::new(Transfers::new(&context.printer));
    let source = store.repository(&args.name.name())?;
    if args.output.extension().is_some_and(|ending| ending == "tar") {
        block_on(async { Ok(write_archive(&source, &root, &args.name, &args.output, &*observer).await?) })?;
    } else {
        let folder = LayoutFolder::open(&args.output)?;
        block_on(async { Ok(copy(&source, &folder, &root, CopyOptions::default(), &*observer).await?) })?;
        folder.finish(&root, &args.name)?;
    }
    if args.json {
        return context.printer.json(&Packed {
            name: args.name.to_string(),
            digest: root.digest.to_string(),
            path: args.output.display().to_string(),
        });
    }
    context.printer.result(args.name.clone().at(root.digest))
}
