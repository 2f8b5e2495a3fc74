//! How large a volume becomes: a request's range, the sector size, and what the filesystem needs at least.

use serde::{Deserialize, Serialize};

use super::{Error, Filesystem, Result};

/// Logical sectors of every volume, from birth to death. A filesystem that was made on smaller ones cannot be mounted
/// when the device later shows larger ones, and over an XFS pool the kernel's own choice changes when a file is cloned.
pub const SECTOR: u32 = 4096;

/// What a volume gets when nobody names a size.
pub const DEFAULT_SIZE: u64 = 1 << 30;

/// The smallest raw block volume.
const BLOCK_MINIMUM: u64 = 1 << 20;

/// Beyond this no backing file can be: XFS and btrfs end at 8 EiB - 1.
const MAXIMUM: u64 = 1 << 62;

/// `CapacityRange` of a request; 0 is "not given".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityRange {
    /// At least this many bytes.
    pub required: u64,
    /// At most this many.
    pub limit: u64,
}

impl CapacityRange {
    /// From the numbers on the wire.
    pub fn new(required: i64, limit: i64) -> Result<Self> {
        let number = |value: i64, name: &str| {
            u64::try_from(value)
                .map_err(|_| Error::OutOfRange(format!("capacity_range.{name} is negative: {value}")))
        };
        let range =
            Self { required: number(required, "required_bytes")?, limit: number(limit, "limit_bytes")? };
        if range.limit != 0 && range.limit < range.required {
            return Err(Error::OutOfRange(format!(
                "capacity_range: limit_bytes {limit} is below required_bytes {required}"
            )));
        }
        if range.required > MAXIMUM {
            return Err(Error::OutOfRange(format!("capacity_range: no volume can have {required} bytes")));
        }
        Ok(range)
    }

    /// Whether a volume of `size` satisfies the request.
    pub fn contains(self, size: u64) -> bool {
        size >= self.required && (self.limit == 0 || size <= self.limit)
    }

    /// The size to give: whole sectors, at least `minimum`.
    pub fn choose(self, minimum: u64, what_needs_it: &str) -> Result<u64> {
        let wanted = match self {
            Self { required: 0, limit: 0 } => DEFAULT_SIZE,
            Self { required: 0, limit } => limit.min(DEFAULT_SIZE),
            Self { required, .. } => required,
        };
        let size = wanted.max(minimum).next_multiple_of(u64::from(SECTOR));
        // Rounding down helps a request that only has a limit.
        let size = if self.contains(size) { size } else { size - size % u64::from(SECTOR) };
        if self.limit != 0 && size > self.limit {
            let down = self.limit - self.limit % u64::from(SECTOR);
            if down >= minimum && self.contains(down) {
                return Ok(down);
            }
            return Err(Error::OutOfRange(format!(
                "capacity_range: limit_bytes {} allows no volume: {what_needs_it} needs {size} bytes",
                self.limit
            )));
        }
        Ok(size)
    }
}

/// The smallest size, and who asks for it.
pub fn minimum(filesystem: Option<Filesystem>) -> (u64, String) {
    match filesystem {
        Some(fs) => (fs.minimum(), fs.to_string()),
        None => (BLOCK_MINIMUM, "a block volume".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choose(required: i64, limit: i64, minimum: u64) -> Result<u64> {
        CapacityRange::new(required, limit)?.choose(minimum, "xfs")
    }

    #[test]
    fn sizes() {
        assert_eq!(choose(0, 0, 1), Ok(DEFAULT_SIZE));
        assert_eq!(choose(5000, 0, 1), Ok(8192));
        assert_eq!(choose(0, 5000, 1), Ok(4096));
        assert_eq!(choose(1, 0, 300 << 20), Ok(300 << 20));
        assert!(matches!(choose(1, 4096, 300 << 20), Err(Error::OutOfRange(_))));
        assert!(matches!(choose(5000, 5000, 1), Err(Error::OutOfRange(_))));
        assert!(matches!(choose(2, 1, 1), Err(Error::OutOfRange(_))));
        assert!(matches!(choose(-1, 0, 1), Err(Error::OutOfRange(_))));
        assert!(matches!(choose(i64::MAX, 0, 1), Err(Error::OutOfRange(_))));
    }

    proptest! {
        /// Whatever is given is what was asked for: whole sectors inside the range, and never below the minimum.
        #[test]
        fn a_given_size_satisfies_the_request(required in 0..1_i64 << 40, limit in 0..1_i64 << 40, minimum in 1..1_u64 << 30) {
            if let Ok(range) = CapacityRange::new(required, limit) && let Ok(size) = range.choose(minimum, "it") {
                prop_assert!(range.contains(size) && size >= minimum && size % u64::from(SECTOR) == 0);
            }
        }
    }
}
