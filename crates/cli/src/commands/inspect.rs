//! `mlxctl inspect`: what an artifact at a registry is, without pulling it.

use std::sync::Arc;

use mlxctl_artifact::{Index, MAX_MANIFEST_BYTES, Manifest, Reference, media_type};
use mlxctl_content::{Resolve as _, read_all};

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::output::{Inspected, Part};
use crate::printer::{size, table};
use crate::progress::Transfers;
use crate::remote;

/// Show what an artifact at a registry is, without pulling it.
///
/// Example: mlxctl inspect ghcr.io/org/pebble:1.0.0
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact.
    #[arg(value_name = "REF")]
    name: Reference,

    /// Print its manifest, byte for byte.
    #[arg(long, conflicts_with_all = ["config", "json"])]
    manifest: bool,

    /// Print its configuration, byte for byte.
    #[arg(long, conflicts_with = "json")]
    config: bool,

    /// Print everything as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: remote::Flags,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let reference = remote::reference(context, &args.name)?;
    let observer = Arc::new(Transfers::new(&context.printer));
    let repository = remote::repository(context, &args.remote, &reference, observer)?;
    let (root, content, config) = block_on(async {
        let wanted =
            reference.digest().map_or_else(|| reference.tag_or_latest().to_owned(), |digest| digest.to_string());
        let root = repository.resolve(&wanted).await?;
        let content = read_all(&repository, &root, MAX_MANIFEST_BYTES).await?;
        let config = if media_type::is_index(&root.media_type) || args.manifest {
            None
        } else {
            let config = Manifest::parse(&content)?.config;
            Some(read_all(&repository, &config, MAX_MANIFEST_BYTES).await?)
        };
        Ok((root, content, config))
    })?;
    if args.manifest {
        return context.printer.text(&String::from_utf8_lossy(&content));
    }
    if args.config {
        let config = config.ok_or_else(|| Failure::new(format!("{reference} is an index: it has no configuration")))?;
        return context.printer.text(&String::from_utf8_lossy(&config));
    }
    let (parts, artifact_type) = if media_type::is_index(&root.media_type) {
        (Index::parse(&content)?.manifests.iter().map(Part::of).collect(), None)
    } else {
        let manifest = Manifest::parse(&content)?;
        (manifest.blobs().map(Part::of).collect::<Vec<_>>(), manifest.artifact_type)
    };
    let total = parts.iter().map(|part| part.size).fold(root.size, u64::saturating_add);
    let inspected = Inspected {
        name: reference.to_string(),
        digest: root.digest.to_string(),
        media_type: root.media_type,
        artifact_type,
        size: total,
        parts,
        // A configuration of others need not be JSON.
        config: config.and_then(|config| serde_json::from_slice(&config).ok()),
    };
    if args.json {
        return context.printer.json(&inspected);
    }
    // A remote wrote this: nothing in it may move the cursor.
    let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(100).collect::<String>();
    let mut rows = vec![
        vec!["name".to_owned(), inspected.name.clone()],
        vec!["digest".to_owned(), inspected.digest.clone()],
        vec!["type".to_owned(), shown(inspected.artifact_type.as_deref().unwrap_or(&inspected.media_type))],
        vec!["size".to_owned(), size(inspected.size)],
    ];
    let config = inspected.config.as_ref().and_then(|config| config.get("config"));
    for key in ["architecture", "paramSize", "precision", "quantization"] {
        if let Some(value) = config.and_then(|config| config.get(key)?.as_str()) {
            rows.push(vec![key.to_owned(), shown(value)]);
        }
    }
    context.printer.result(table(&rows))?;
    let mut rows = vec![["PART", "SIZE", "DIGEST"].map(str::to_owned).to_vec()];
    rows.extend(inspected.parts.iter().map(|part| {
        let name = part.path.as_deref().unwrap_or(&part.media_type);
        vec![shown(name), size(part.size), part.digest[..19.min(part.digest.len())].to_owned()]
    }));
    context.printer.result(format!("\n{}", table(&rows)))
}
