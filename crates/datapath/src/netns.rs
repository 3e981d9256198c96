//! Network namespaces: finding them by their inode numbers, which is all that a socket tells of its
//! own, and looking at the TCP sockets in them.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use libbpf_rs::Link;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Error, Result, object};

/// Runs an iterator over TCP sockets in a network namespace, into which it moves the calling thread.
pub(crate) fn sweep_here(iterator: &Link, namespace: &File) -> Result<()> {
    const WHAT: &str = "the iterator over TCP sockets";
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| Error::io("enter", "a network namespace")(error.into()))?;
    object::read(iterator, WHAT)?;
    Ok(())
}

/// Runs an iterator over TCP sockets in all of these network namespaces, by their inode numbers, so many
/// times.
pub(crate) fn sweep(iterator: &Link, namespaces: &HashSet<u32>, times: usize) -> Result<()> {
    let mut found = HashMap::new();
    find(namespaces, &mut found)?;
    for namespace in std::iter::repeat_n(found.values(), times).flatten() {
        // On a thread of its own, as it moves there.
        thread::scope(|scope| {
            let sweep = scope.spawn(|| sweep_here(iterator, namespace));
            sweep.join().expect("it does not panic")
        })?;
    }
    Ok(())
}

/// Adds to `found` those of the namespaces `wanted` that it lacks and that a process is in or holds a
/// descriptor of. Some may stay unknown.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn find(wanted: &HashSet<u32>, found: &mut HashMap<u32, Arc<File>>) -> Result<()> {
    let mut missing: HashSet<u32> = wanted.clone();
    missing.retain(|inode| !found.contains_key(inode));
    if missing.is_empty() {
        return Ok(());
    }
    let processes = processes()?;
    for links in [namespaces_of, descriptors_of] {
        for link in processes.iter().flat_map(|process| links(process)) {
            if missing.is_empty() {
                return Ok(());
            }
            if let Some((inode, file)) = open(&link, &missing) {
                missing.remove(&inode);
                found.insert(inode, Arc::new(file));
            }
        }
    }
    Ok(())
}

fn processes() -> Result<Vec<PathBuf>> {
    let all = fs::read_dir("/proc").map_err(Error::io("read", "/proc"))?;
    let is_process = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
    };
    Ok(all
        .flatten()
        .map(|entry| entry.path())
        .filter(is_process)
        .collect())
}

/// Its threads may be in different ones.
fn namespaces_of(process: &Path) -> Vec<PathBuf> {
    entries(&process.join("task"))
        .map(|thread| thread.join("ns/net"))
        .collect()
}

fn descriptors_of(process: &Path) -> Vec<PathBuf> {
    entries(&process.join("fd")).collect()
}

/// None, when the process ended meanwhile.
fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// Opens what the link leads to, if it is one of these namespaces.
fn open(link: &Path, wanted: &HashSet<u32>) -> Option<(u32, File)> {
    let target = fs::read_link(link).ok()?;
    let inode = target
        .to_str()?
        .strip_prefix("net:[")?
        .strip_suffix(']')?
        .parse()
        .ok()?;
    if !wanted.contains(&inode) {
        return None;
    }
    Some((inode, File::open(link).ok()?))
}
