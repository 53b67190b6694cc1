//! Numbers of files as the kernel sees them.
//!
//! The dataset at the top has its objects' numbers, so that `ls -i` and `zdb` agree; every other dataset of the mount
//! (snapshots, children) has a view number above them; directories that are on no disk (`.zfs`) have a bit of their own.
//! The highest bit stays clear: some programs and kernels take the numbers for signed.
//! The kernel calls the top directory 1 wherever it is stored: object 1 is the master node, never a file.

use icecore_format::ObjectId;

/// Bits of an object number (`DN_MAX_OBJECT_SHIFT`, dmu_impl.h).
const OBJECT_BITS: u32 = 48;
const MADE_UP: u64 = 1 << 62;
/// Views a mount can have.
pub(crate) const VIEWS_MAX: u16 = 0x3fff;

/// Which dataset of a mount: 0 is the one at the top.
pub(crate) type ViewId = u16;

/// What a number stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    /// The top directory of the mount.
    Top,
    /// An object of a dataset.
    Object(ViewId, ObjectId),
    /// `.zfs` of a dataset.
    Control(ViewId),
    /// `.zfs/snapshot` of a dataset.
    Snapshots(ViewId),
}

impl Node {
    /// From the kernel's number.
    pub(crate) fn from_number(n: u64) -> Option<Self> {
        if n >> 63 != 0 {
            return None;
        }
        let view = (n >> OBJECT_BITS) as u16 & VIEWS_MAX;
        let object = n & ((1 << OBJECT_BITS) - 1);
        Some(match (n & MADE_UP != 0, object) {
            (false, _) if n == 1 => Self::Top,
            (false, object) => Self::Object(view, ObjectId(object)),
            (true, 1) => Self::Control(view),
            (true, 2) => Self::Snapshots(view),
            (true, _) => return None,
        })
    }
    /// The number told with the name at a place of a directory that was not looked at: that of no file, but not 0,
    /// which would hide the name, and no other's, which the kernel would take for another name of the same directory.
    pub(crate) fn unseen(place: u64) -> u64 {
        const BASE: u64 = 16;
        MADE_UP | (BASE + place) & ((1 << OBJECT_BITS) - 1)
    }

    /// The dataset it is of.
    pub(crate) fn view(self) -> ViewId {
        match self {
            Self::Top => 0,
            Self::Object(view, _) | Self::Control(view) | Self::Snapshots(view) => view,
        }
    }

    /// The number, as files have it in `stat`.
    pub(crate) fn number(self) -> u64 {
        let at = |view: ViewId, object: u64| u64::from(view) << OBJECT_BITS | object;
        match self {
            Self::Top => 1,
            Self::Object(view, id) => at(view, id.0),
            Self::Control(view) => MADE_UP | at(view, 1),
            Self::Snapshots(view) => MADE_UP | at(view, 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back() {
        for node in [
            Node::Top,
            Node::Object(0, ObjectId(34)),
            Node::Object(7, ObjectId(1)),
            Node::Object(VIEWS_MAX, ObjectId((1 << 48) - 1)),
            Node::Control(0),
            Node::Snapshots(VIEWS_MAX),
        ] {
            assert_eq!(Node::from_number(node.number()), Some(node));
        }
        assert_eq!(Node::from_number(u64::MAX), None);
        assert_eq!(Node::from_number(Node::unseen(0)), None);
    }
}
