//! Which computer this is, as far as its host can tell one from another.
//!
//! A copy of the state directory on another computer says something else here, and so does a copied disk image on another
//! board: systemd makes a machine-id of its own for each installation, and firmware (SMBIOS, `product_uuid`) gives each board
//! and each virtual machine one. Both are kept over updates, and changes of disks and network cards. Only root may read the
//! latter; what cannot be read is not said. What is said is a digest with the machine's own id in it.

use std::fs;
use std::path::Path;

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::MachineId;
use sluice_protocol::message::control::Hardware;

const SYSTEM: &str = "/etc/machine-id";
const BOARD: &str = "/sys/class/dmi/id/product_uuid";
/// No id is longer.
const LONGEST: usize = 256;

/// Of this computer, for this machine.
#[must_use]
pub fn of(machine: MachineId) -> Hardware {
    read(machine, Path::new(SYSTEM), Path::new(BOARD))
}

fn read(machine: MachineId, system: &Path, board: &Path) -> Hardware {
    let digest = |what: &str, path: &Path| {
        let text = fs::read_to_string(path).ok()?;
        let id = text.trim();
        is_one(id).then(|| Digest::of(format!("sluice {what} of {machine}: {id}").as_bytes()))
    };
    Hardware {
        system: digest("system", system),
        board: digest("board", board),
    }
}

/// Whether it tells one computer from another. What a system says before its first start (machine-id(5)), and what firmware
/// says that was never given an id, is the same on many.
fn is_one(id: &str) -> bool {
    let digits: Vec<u8> = id.bytes().filter(u8::is_ascii_hexdigit).collect();
    let differs = digits.iter().any(|digit| Some(digit) != digits.first());
    id.len() <= LONGEST && digits.len() >= 32 && differs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_computer_is_told_and_what_says_nothing_is_not() {
        let folder = tempfile::tempdir().expect("makes a folder");
        let (system, board) = (folder.path().join("system"), folder.path().join("board"));
        let machine = MachineId::generate();
        assert_eq!(read(machine, &system, &board), Hardware::default());
        for nothing in [
            "",
            "uninitialized\n",
            "00000000-0000-0000-0000-000000000000\n",
        ] {
            fs::write(&board, nothing).expect("writes");
            assert_eq!(read(machine, &system, &board), Hardware::default());
        }
        fs::write(&system, "0123456789abcdef0123456789abcdef\n").expect("writes");
        let first = read(machine, &system, &board);
        assert!(first.system.is_some() && first.board.is_none());
        assert_eq!(read(machine, &system, &board), first);
        let other = read(MachineId::generate(), &system, &board);
        assert!(other.system.is_some() && other.system != first.system);
        fs::write(&system, "1123456789abcdef0123456789abcdef\n").expect("writes");
        assert!(read(machine, &system, &board).differs_from(&first));
    }
}
