//! `/proc/self/mountinfo`, parsed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::plan::Mount;

/// Every line that has the documented form (proc_pid_mountinfo(5)).
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = PathBuf::from(unescape(fields.nth(3)?));
    let target = PathBuf::from(unescape(fields.next()?));
    let mount_options = String::from_utf8_lossy(fields.next()?).into_owned();
    // Any number of optional fields, then a dash.
    fields.by_ref().find(|&field| field == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = unescape(fields.next()?).to_string_lossy().into_owned();
    let super_options = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    let options: BTreeSet<String> =
        mount_options.split(',').chain(super_options.split(',')).map(str::to_owned).collect();
    let read_only = mount_options.split(',').any(|option| option == "ro");
    Some(Mount { target, root, source, kind, read_only, options })
}

/// Blanks, line ends and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = (*first == b'\\' && tail.len() >= 3)
            .then(|| std::str::from_utf8(&tail[..3]).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths with blanks, binds of a device node, and filesystems with optional fields.
    #[test]
    fn lines() {
        let text =
            br"36 35 98:0 /mnt1 /mnt/a\040b rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue
37 35 0:6 /loop3 /target ro - devtmpfs udev rw,size=1k
not a line
";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].target, PathBuf::from("/mnt/a b"));
        assert!(!mounts[0].read_only && mounts[0].options.contains("errors=continue"));
        assert_eq!((mounts[1].root.to_str(), mounts[1].read_only), (Some("/loop3"), true));
        assert_eq!(mounts[1].kind, "devtmpfs");
    }
}
