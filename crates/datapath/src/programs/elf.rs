//! Whether the code in an ELF file can call splice(2).

use memchr::memmem;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSymbol};

/// The function of Go's runtime that splices; its name is in the tables of every Go program that has
/// it, stripped or not (src/internal/poll/splice_linux.go, Go 1.21).
const GO: &[u8] = b"internal/poll.Splice";

/// What a file alone tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// Nothing in it calls splice(2); what it links to may.
    Clean,
    /// It may call splice(2), or nobody can tell.
    MaySplice,
}

/// Looks at an executable or a library. A file that is no 64-bit ELF file may do anything.
pub(super) fn look(data: &[u8]) -> Code {
    let Ok(elf) = ElfFile64::<Endianness>::parse(data) else {
        return Code::MaySplice;
    };
    let imports = elf
        .dynamic_symbols()
        .any(|symbol| symbol.is_undefined() && symbol.name() == Ok("splice"));
    let go = memmem::find(data, GO).is_some();
    if imports || go || (is_static(&elf) && !is_clean_static(&elf)) {
        return Code::MaySplice;
    }
    Code::Clean
}

/// It has the C library inside, if any.
fn is_static(elf: &ElfFile64<'_>) -> bool {
    elf.dynamic_symbols().next().is_none()
}

/// Its symbols are there and none of them is the C library's wrapper; or it is Go, which has none.
fn is_clean_static(elf: &ElfFile64<'_>) -> bool {
    if elf
        .section_by_name(".gopclntab")
        .is_some_and(|table| table.size() > 0)
    {
        return true;
    }
    let mut names = elf
        .symbols()
        .filter_map(|symbol| symbol.name().ok())
        .peekable();
    names.peek().is_some() && !names.any(|name| matches!(name, "splice" | "__splice"))
}
