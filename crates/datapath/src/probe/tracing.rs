//! Kinds of programs that look at the kernel's functions. Many builds refuse some of them.

use std::mem;

use libbpf_rs::{Object, ProgramMut};

use super::attempt::{Attempt, attempt};
use crate::{Error, Result, object};

/// How the kernel answered to each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// fentry: a program at a function's entry, through the ftrace trampoline.
    pub fentry: Attempt,
    /// LSM: a program on a security hook.
    pub lsm: Attempt,
    /// kprobe: a program on a breakpoint.
    pub kprobe: Attempt,
}

/// Loads a program of each kind that does nothing, attaches it for a moment where nobody calls it,
/// and lets it go.
///
/// # Errors
/// When something else failed than the kernel's consent.
pub fn tracing() -> Result<Tracing> {
    Ok(Tracing {
        fentry: attempt(|| attach("probe_fentry"))?,
        lsm: attempt(|| attach("probe_lsm"))?,
        kprobe: attempt(|| attach("probe_kprobe"))?,
    })
}

fn attach(name: &'static str) -> Result<()> {
    let object = load(name, false)?;
    let link = program(&object, name)
        .attach()
        .map_err(Error::bpf("attach", name))?;
    mem::drop(link);
    Ok(())
}

/// Loads one program of the probe's object alone, and the object's maps only if it uses them: a
/// kernel without that kind of map must not be taken for one without that kind of program.
pub(super) fn load(name: &'static str, with_maps: bool) -> Result<Object> {
    let mut open = object::open(object::PROBE, "probe")?;
    for mut program in open.progs_mut() {
        let chosen = program.name() == name;
        program.set_autoload(chosen);
    }
    for mut map in open.maps_mut() {
        map.set_autocreate(with_maps)
            .map_err(Error::bpf("open", "the probe's map"))?;
    }
    open.load().map_err(Error::bpf("load", name))
}

pub(super) fn program<'a>(object: &'a Object, name: &str) -> ProgramMut<'a> {
    object
        .progs_mut()
        .find(|program| program.name() == name)
        .unwrap_or_else(|| panic!("bpf/probe.bpf.c defines {name}"))
}
