//! `cargo xtask image build|save|push`: container images without a container engine.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use trysail_cluster::image::registry::Login;
use trysail_cluster::image::{self, ImageGroup, ImageTar};
use trysail_cluster::progress::Progress;

/// Arguments of `image`.
#[derive(Args, Debug)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Build images into the cache and print where their archives are.
    Build {
        /// Image references, or groups (cluster, own, demo, upstream); without any, everything.
        names: Vec<String>,
    },
    /// Write one image as an archive in the OCI layout.
    Save {
        /// The image.
        name: String,
        /// The file to write.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Push one image to a registry.
    Push {
        /// The image.
        name: String,
        /// Where to, for example 127.0.0.1:5000/team/app:1.0; without it, the image's own name.
        target: Option<String>,
    },
}

/// Runs the verb.
pub(crate) fn run(args: &ImageArgs) -> Result<()> {
    let progress = Progress::new();
    match &args.action {
        Action::Build { names } => {
            for tar in image::ensure_images(&expand(names), &progress)? {
                println!("{}  {}", tar.path.display(), tar.references.join(" "));
            }
            Ok(())
        }
        Action::Save { name, output } => {
            let (tar, _) = one(name, &progress)?;
            std::fs::copy(&tar.path, output)
                .with_context(|| format!("failed to write {}", output.display()))?;
            Ok(())
        }
        Action::Push { name, target } => {
            let (tar, reference) = one(name, &progress)?;
            let target = target.as_ref().unwrap_or(&reference);
            image::registry::push(&tar, &reference, target, Login::from_env().as_ref(), &progress)
        }
    }
}

fn one(name: &str, progress: &Progress) -> Result<(ImageTar, String)> {
    let tar = image::ensure_images(&[name], progress)?.pop();
    match tar {
        Some(tar) if tar.references.len() == 1 => {
            let reference = tar.references[0].clone();
            Ok((tar, reference))
        }
        _ => bail!("{name} did not give exactly one image"),
    }
}

fn expand<'a>(names: &'a [String]) -> Vec<&'a str> {
    if names.is_empty() {
        return image::known_references();
    }
    let group = |name: &str| ImageGroup::ALL.into_iter().find(|group| group.name() == name);
    let of_group = |group: ImageGroup| -> Vec<&'a str> { group.references() };
    names.iter().flat_map(|name| group(name).map_or_else(|| vec![name.as_str()], of_group)).collect()
}
