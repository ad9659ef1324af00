//! A pin of this layout's name that is something else: said, left alone, and nothing is loaded over it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::Path;

use aya::Ebpf;
use calico_azure_ebpf::abi::map;
use calico_azure_tests::harness::{built, object};
use calico_azure_userspace::dataplane::kernel::{Kernel, KernelError, Sizes};
use calico_azure_userspace::dataplane::pins::{PinError, Pins};

const SIZES: Sizes = Sizes {
    conntrack: 1024,
    half_open: 1024,
    tables: 1024,
};

/// Removes the pins again, whatever becomes of the test.
struct Pinned(Pins);

impl Pinned {
    fn new(name: &str) -> Self {
        let node = format!("{name}-{}", std::process::id());
        let pins = Pins::new(Path::new("/sys/fs/bpf"), &node).unwrap();
        pins.create().unwrap();
        Self(pins)
    }

    fn load(&self) -> Result<Kernel, KernelError> {
        Kernel::load(&object().unwrap(), Some(self.0.clone()), SIZES)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _removed = self.0.remove();
    }
}

#[test]
fn a_pin_of_another_shape_is_refused_by_name_and_left_alone() {
    let pinned = Pinned::new("mismatch");
    let path = pinned.0.maps().join(map::CLASS4);
    // A hash whose keys are longer.
    let other = Ebpf::load(&built("calico-azure-yardstick.o").unwrap()).unwrap();
    other.map("KEYS4").unwrap().pin(&path).unwrap();
    for _ in 0..2 {
        let Err(error) = pinned.load() else {
            panic!("a map of another shape was taken over");
        };
        let KernelError::Pin(PinError::Mismatch {
            path: named,
            found,
            expected,
        }) = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*named, path);
        assert_ne!(found, expected);
        let text = error.to_string();
        for part in [path.to_str().unwrap(), found, expected, "calico-azure cleanup"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(path.exists(), "it is not ours to remove");
        let pins = std::fs::read_dir(pinned.0.maps()).unwrap().count();
        assert_eq!(pins, 1, "nothing was made beside it");
    }
    std::fs::remove_file(&path).unwrap();
    let loaded = pinned.load();
    assert!(loaded.is_ok(), "{:?}", loaded.err());
    // The agent's own are taken over.
    drop(loaded);
    assert!(pinned.load().is_ok());
}
