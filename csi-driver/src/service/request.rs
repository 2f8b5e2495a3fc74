//! What is asked for, checked field by field. What comes out of here is complete and supported.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use crate::driver::{InlineRequest, SnapshotRequest, quantity};
use crate::model::capability::{common_access, mount_option};
use crate::model::{
    AccessMode, AccessType, Capability, CapacityRange, Error, Filesystem, Parameters, Result, Source,
    parameters,
};
use crate::plan::Wanted;
use crate::proto::csi;

/// Strings of requests end here, unless the specification says otherwise.
const STRING_LENGTH: usize = 128;
/// Longest path of Linux.
const PATH_LENGTH: usize = 4096;

/// A field that must not be empty.
pub(super) fn required(field: &'static str, value: &str) -> Result<String> {
    match value {
        "" => Err(Error::Missing(field)),
        value => Ok(value.to_owned()),
    }
}

/// A name: any text without control characters.
fn name(value: &str) -> Result<String> {
    let value = required("name", value)?;
    if value.len() > STRING_LENGTH {
        return Err(Error::invalid(
            "name",
            format!("has {} bytes; {STRING_LENGTH} are allowed", value.len()),
        ));
    }
    if value.chars().any(char::is_control) {
        return Err(Error::invalid("name", "has control characters"));
    }
    Ok(value)
}

/// A path that the caller is going to use: absolute, and without tricks.
pub(super) fn path(field: &'static str, value: &str) -> Result<PathBuf> {
    let path = PathBuf::from(required(field, value)?);
    if !path.is_absolute() || value.len() > PATH_LENGTH || value.contains("/../") || value.ends_with("/..") {
        return Err(Error::invalid(field, format!("{value:?} is not an absolute path without \"..\"")));
    }
    // "/a//b/" and "/a/b" are one path in the kernel's table of mounts.
    Ok(path.components().collect())
}

fn mode(mode: i32) -> Result<AccessMode> {
    use csi::volume_capability::access_mode::Mode;
    let field = "volume_capability.access_mode";
    match Mode::try_from(mode) {
        Ok(Mode::SingleNodeWriter) => Ok(AccessMode::SingleNodeWriter),
        Ok(Mode::SingleNodeReaderOnly) => Ok(AccessMode::SingleNodeReaderOnly),
        Ok(Mode::MultiNodeReaderOnly) => Ok(AccessMode::MultiNodeReaderOnly),
        Ok(Mode::SingleNodeSingleWriter) => Ok(AccessMode::SingleNodeSingleWriter),
        Ok(Mode::SingleNodeMultiWriter) => Ok(AccessMode::SingleNodeMultiWriter),
        Ok(Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter) => {
            Err(Error::invalid(field, "a volume of this driver is on one node: say ReadWriteOnce"))
        }
        Ok(Mode::Unknown) => Err(Error::Missing("volume_capability.access_mode")),
        Err(_) => Err(Error::invalid(field, format!("{mode} is unknown"))),
    }
}

/// One capability.
pub(super) fn capability(capability: Option<&csi::VolumeCapability>) -> Result<Capability> {
    let capability = capability.ok_or(Error::Missing("volume_capability"))?;
    let mode = mode(capability.access_mode.as_ref().map_or(0, |access| access.mode))?;
    let access = match &capability.access_type {
        None => return Err(Error::Missing("volume_capability.access_type")),
        Some(csi::volume_capability::AccessType::Block(_)) => AccessType::Block,
        Some(csi::volume_capability::AccessType::Mount(mount)) => AccessType::Mount {
            fs: filesystem(&mount.fs_type)?,
            options: mount
                .mount_flags
                .iter()
                .map(|flag| mount_option(flag))
                .collect::<Result<BTreeSet<_>>>()?,
        },
    };
    if let csi::VolumeCapability {
        access_type:
            Some(csi::volume_capability::AccessType::Mount(csi::volume_capability::MountVolume {
                volume_mount_group,
                ..
            })),
        ..
    } = capability
        && !volume_mount_group.is_empty()
    {
        return Err(Error::invalid(
            "volume_capability.mount.volume_mount_group",
            "the kubelet sets groups, not this driver",
        ));
    }
    Ok(Capability { access, mode })
}

fn filesystem(fs_type: &str) -> Result<Option<Filesystem>> {
    match fs_type {
        "" => Ok(None),
        name => name.parse().map(Some).map_err(|()| {
            let known: Vec<_> = Filesystem::ALL.iter().map(|fs| fs.name()).collect();
            Error::invalid(
                "volume_capability.mount.fs_type",
                format!("{name:?} is unknown; known are {}", known.join(", ")),
            )
        }),
    }
}

/// A list of at least one.
pub(super) fn capabilities(list: &[csi::VolumeCapability]) -> Result<Vec<Capability>> {
    if list.is_empty() {
        return Err(Error::Missing("volume_capabilities"));
    }
    list.iter().map(|each| capability(Some(each))).collect()
}

/// A capacity range, if one is given.
pub(super) fn range(range: Option<&csi::CapacityRange>) -> Result<Option<CapacityRange>> {
    range.map(|range| CapacityRange::new(range.required_bytes, range.limit_bytes)).transpose()
}

/// What `CreateVolume` wants.
pub(super) fn wanted(request: &csi::CreateVolumeRequest) -> Result<Wanted> {
    let name = name(&request.name)?;
    let capabilities = capabilities(&request.volume_capabilities)?;
    let fs = common_access(&capabilities)?;
    parameters::mutable(&request.mutable_parameters)?;
    Ok(Wanted {
        name,
        range: range(request.capacity_range.as_ref())?.unwrap_or_default(),
        block: capabilities.iter().any(|capability| capability.access == AccessType::Block),
        fs,
        parameters: Parameters::of_class(&request.parameters)?,
        source: request.volume_content_source.as_ref().map(source).transpose()?,
    })
}

fn source(source: &csi::VolumeContentSource) -> Result<Source> {
    use csi::volume_content_source::Type;
    match &source.r#type {
        Some(Type::Snapshot(snapshot)) => {
            let id = required("volume_content_source.snapshot.snapshot_id", &snapshot.snapshot_id)?;
            id.parse().map(Source::Snapshot).map_err(|_| Error::NoSnapshot(id))
        }
        Some(Type::Volume(volume)) => {
            let id = required("volume_content_source.volume.volume_id", &volume.volume_id)?;
            id.parse().map(Source::Volume).map_err(|_| Error::NoVolume(id))
        }
        None => Err(Error::Missing("volume_content_source.type")),
    }
}

/// What `CreateSnapshot` wants.
pub(super) fn snapshot(request: &csi::CreateSnapshotRequest) -> Result<SnapshotRequest> {
    let source = required("source_volume_id", &request.source_volume_id)?;
    parameters::of_snapshot_class(&request.parameters)?;
    Ok(SnapshotRequest { name: name(&request.name)?, source })
}

/// What an inline volume wants, if the kubelet says that this is one.
pub(super) fn inline(
    request: &csi::NodePublishVolumeRequest,
    id: &str,
    target: &std::path::Path,
    capability: &Capability,
) -> Result<Option<InlineRequest>> {
    if request.volume_context.get(EPHEMERAL).map(String::as_str) != Some("true") {
        return Ok(None);
    }
    let mut class = request.volume_context.clone();
    let size = class.remove("size").map(|size| quantity(&size)).transpose()?;
    Ok(Some(InlineRequest {
        id: id.to_owned(),
        target: target.to_owned(),
        capability: capability.clone(),
        readonly: request.readonly,
        size,
        parameters: Parameters::of_class(&class)?,
    }))
}

/// How the kubelet marks an inline volume.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// One page of something sorted: the entries after the token's, and the next token.
pub(super) fn page<T>(
    all: Vec<T>,
    max_entries: i32,
    token: &str,
    key: impl Fn(&T) -> String,
) -> Result<(Vec<T>, String)> {
    let limit = match max_entries {
        0 => usize::MAX,
        n => usize::try_from(n).map_err(|_| Error::invalid("max_entries", format!("{n} is negative")))?,
    };
    // The token is the last id of the page before. It stays good when that object is deleted meanwhile.
    let after = match token.strip_prefix(TOKEN) {
        _ if token.is_empty() => String::new(),
        Some(id)
            if id.parse::<crate::model::VolumeId>().is_ok()
                || id.parse::<crate::model::SnapshotId>().is_ok() =>
        {
            id.to_owned()
        }
        _ => return Err(Error::BadToken(token.to_owned())),
    };
    let mut rest: Vec<T> = all.into_iter().filter(|item| key(item) > after).collect();
    if rest.len() <= limit {
        return Ok((rest, String::new()));
    }
    rest.truncate(limit);
    let next = rest.last().map(|last| format!("{TOKEN}{}", key(last))).unwrap_or_default();
    Ok((rest, next))
}

/// How a page token begins.
const TOKEN: &str = "after:";

/// Parameters of `GetCapacity`.
pub(super) fn class(parameters: &HashMap<String, String>) -> Result<Parameters> {
    Parameters::of_class(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Walking the pages shows everything once, whatever their size.
        #[test]
        fn pages_cover_everything_once(count in 0..40_u128, size in 1..9) {
            let pool = crate::model::PoolId::of(uuid::Uuid::from_u128(9));
            let all: Vec<String> = (0..count)
                .map(|n| crate::model::VolumeId::new(&pool, 1, n).to_string())
                .collect();
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let (page, next) = page(all.clone(), size, &token, Clone::clone).unwrap();
                prop_assert!(page.len() <= size as usize);
                seen.extend(page);
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            prop_assert_eq!(seen, all);
        }

        /// A path from the kubelet is used as root: nothing relative, nothing upwards.
        #[test]
        fn paths_do_not_go_up(text in "[a/.]{0,12}") {
            if let Ok(path) = path("p", &text) {
                prop_assert!(path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir));
            }
        }
    }

    #[test]
    fn tokens_that_were_never_given_out() {
        let none = page(vec![String::new()], 0, "invalid-token", Clone::clone);
        assert_eq!(none, Err(Error::BadToken("invalid-token".to_owned())));
        assert!(page(vec![String::new()], -1, "", Clone::clone).is_err());
    }
}
