//! Addresses of kernel functions that BPF code compares with.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::OnceLock;

use libbpf_rs::OpenObject;

use crate::{Error, Result};

/// Where the kernel lists its symbols: address, type, name, and for those of modules the module.
const KALLSYMS: &str = "/proc/kallsyms";

/// Section of the objects that holds the address; see `bpf/lib/rest.h`.
const SECTION: &str = ".rodata.symbols";

/// Fills in the address in an object that asks for it. It is read here, once in a process, as libbpf reads
/// the whole list for each object, which takes a tenth of a second, and with stdio, which fails in a
/// process that is about to exit.
///
/// # Errors
/// When libbpf refuses the value.
pub(crate) fn fill(object: &mut OpenObject) -> Result<()> {
    static ADDRESS: OnceLock<u64> = OnceLock::new();

    let named = |map: &libbpf_rs::OpenMapMut<'_>| map.name().to_string_lossy().ends_with(SECTION);
    let Some(mut map) = object.maps_mut().find(named) else {
        return Ok(());
    };
    let address = ADDRESS.get_or_init(|| address_of("woken_wake_function").unwrap_or(0));
    map.set_initial_value(&address.to_ne_bytes())
        .map_err(Error::bpf("fill in", SECTION))
}

/// `None` where the kernel has no such symbol, or hides addresses, which it shows as zeroes
/// (`kallsyms_show_value`, kernel/ksyms_common.c, 6.18).
fn address_of(symbol: &str) -> Option<u64> {
    let lines = BufReader::new(File::open(KALLSYMS).ok()?).lines();
    lines.map_while(std::io::Result::ok).find_map(|line| {
        let mut words = line.split(' ');
        match (words.next(), words.nth(1)) {
            (Some(address), Some(name)) if name == symbol => u64::from_str_radix(address, 16).ok(),
            _ => None,
        }
    })
}
