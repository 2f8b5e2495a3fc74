//! Which versions of the CNI specification are spoken, and what each of them knows.

use std::fmt;

use super::error::{CniError, Code};

/// A version of the specification that is supported. Ordered: later versions are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecVersion {
    /// 0.3.1: addresses carry `version: "4"|"6"`.
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0: addresses lose `version`.
    V1_0_0,
    /// 1.1.0: GC, STATUS, and more fields of interfaces and routes.
    V1_1_0,
}

impl SpecVersion {
    /// All of them, oldest first: what VERSION answers.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub const LATEST: Self = Self::V1_1_0;

    /// As written in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads `cniVersion`. A configuration without one means 0.1.0 by libcni's convention, which is not supported.
    pub fn parse(text: Option<&str>) -> Result<Self, CniError> {
        let known = |text: &str| Self::ALL.into_iter().find(|version| version.as_str() == text);
        let wanted = text.unwrap_or("0.1.0");
        known(wanted).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            let msg = match text {
                Some(text) => format!("cniVersion {text:?} is not supported"),
                None => "the configuration has no cniVersion, which means 0.1.0: not supported".to_owned(),
            };
            CniError::new(Code::IncompatibleVersion, msg)
                .details(format!("supported: {all}; change cniVersion in the network configuration"))
        })
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
