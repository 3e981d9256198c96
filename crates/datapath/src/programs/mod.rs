//! Which programs may be enrolled: those whose files cannot call splice(2).
//!
//! A process's executable and the libraries that it has mapped are looked at. What that does not see,
//! a call by number (syscall(2), io_uring) or a library that is loaded later, is listed in
//! docs/semantics.md.

mod elf;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use libbpf_rs::{Object, RingBuffer};

use self::elf::Code;
use crate::abi::{Process, Program, Verdict, Wire};
use crate::maps::{Maps, SHARED};
use crate::{Error, Result, object};

/// Device, inode and time of change of a file that was looked at.
type Version = (u64, u64, i64, i64);

/// Who is told the paths of programs.
type Naming<'a> = dyn Fn(Program, &Path) + 'a;

/// Looks at programs, and tells the datapath.
pub struct Programs<'a> {
    maps: &'a Maps,
    object: Object,
    ring: RingBuffer<'a>,
    heard: Rc<RefCell<Vec<Process>>>,
    /// Of which it is known, whatever their files say, that they do not splice from sockets.
    trusted: Box<dyn Fn(&Path) -> bool + 'a>,
    /// Is told the path of a program before anybody else is told of the program.
    named: Box<Naming<'a>>,
    seen: HashMap<Version, Code>,
}

impl<'a> Programs<'a> {
    /// Loads the iterators. `trusted` says of the path of an executable whether it does not splice
    /// from sockets, whatever its files say.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(maps: &'a Maps, trusted: impl Fn(&Path) -> bool + 'a) -> Result<Self> {
        let mut open = object::open(object::PROGRAMS, "programs")?;
        for name in SHARED {
            object::share(&mut open, name, maps.get(name))?;
        }
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterators over processes"))?;
        let heard = Rc::<RefCell<Vec<Process>>>::default();
        let hears = heard.clone();
        let ring = object::ring(
            maps.get("strangers"),
            "the ring buffer of strangers",
            move |bytes| hears.borrow_mut().extend(Process::read(bytes)),
        )?;
        let (trusted, seen) = (Box::new(trusted), HashMap::new());
        Ok(Self {
            maps,
            object,
            ring,
            heard,
            trusted,
            named: Box::new(|_, _| {}),
            seen,
        })
    }

    /// Tells the path of every program, as its processes see it, before its verdict holds.
    #[must_use]
    pub fn telling(mut self, named: impl Fn(Program, &Path) + 'a) -> Self {
        self.named = Box::new(named);
        self
    }

    /// What runs now: programs, and their paths as their processes see them.
    ///
    /// # Errors
    /// When the kernel refuses the iterator.
    pub fn running(&self) -> Result<Vec<(Program, PathBuf)>> {
        self.paths(&self.processes()?)
    }

    /// Looks at every running program.
    ///
    /// # Errors
    /// When the kernel refuses an iterator or a map.
    pub fn survey(&mut self) -> Result<()> {
        let running = self.processes()?;
        self.judge(&running)
    }

    /// Notes who has the sockets that listen already.
    pub(crate) fn note_listeners(&self) -> Result<()> {
        self.iterate("beeline_listeners").map(drop)
    }

    /// Waits at most `timeout` for a program that nobody looked at, and looks at it.
    ///
    /// # Errors
    /// When polling fails for another reason than a signal, or the kernel refuses a map.
    pub fn poll(&mut self, timeout: Duration) -> Result<()> {
        match self.ring.poll(timeout) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => {}
            other => other.map_err(Error::bpf("read", "the ring buffer of strangers"))?,
        }
        let heard = self.heard.take();
        if heard.is_empty() {
            return Ok(());
        }
        self.judge(&heard)
    }

    /// The program that a process executes.
    ///
    /// # Errors
    /// When the kernel refuses the iterator.
    pub fn of(&self, pid: u32) -> Result<Option<Program>> {
        let found = self
            .processes()?
            .into_iter()
            .find(|process| process.pid == pid);
        Ok(found.map(|process| process.program))
    }

    /// Of those that still execute the same program.
    fn paths(&self, processes: &[Process]) -> Result<Vec<(Program, PathBuf)>> {
        let all = processes.iter();
        let mut paths: Vec<_> = all.filter_map(|one| Some((*one, path(one.pid)?))).collect();
        let now = self.processes()?;
        let now: HashSet<_> = now.iter().map(|p| (p.pid, p.program)).collect();
        paths.retain(|(process, _)| now.contains(&(process.pid, process.program)));
        let named = paths.into_iter();
        Ok(named
            .map(|(process, path)| (process.program, path))
            .collect())
    }

    fn judge(&mut self, processes: &[Process]) -> Result<()> {
        for (program, path) in self.paths(processes)? {
            (self.named)(program, &path);
        }
        let mut looked = Vec::new();
        for process in processes {
            if self.maps.verdict(process.program)? == Verdict::Unknown {
                looked.extend(self.look(process.pid).map(|verdict| (process, verdict)));
            }
        }
        let now = self.processes()?;
        let now: HashSet<_> = now.iter().map(|p| (p.pid, p.program)).collect();
        // One that executed something else meanwhile has shown other files.
        looked.retain(|(process, _)| now.contains(&(process.pid, process.program)));
        // The libraries of one process may be more than those of another.
        looked.sort_by_key(|(_, verdict)| *verdict);
        for (process, verdict) in looked {
            self.maps.set_verdict(process.program, verdict)?;
        }
        Ok(())
    }

    /// `None` when the process is gone.
    fn look(&mut self, pid: u32) -> Option<Verdict> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        if (self.trusted)(&path(pid)?) {
            return Some(Verdict::NeverSplices);
        }
        let maps = fs::read_to_string(process.join("maps")).ok()?;
        let mut files = vec![process.join("exe")];
        files.extend(code(&maps).map(|range| process.join("map_files").join(range)));
        for file in files {
            if self.code(&file)? == Code::MaySplice {
                return Some(Verdict::MaySplice);
            }
        }
        Some(Verdict::NeverSplices)
    }

    /// What a file tells, `None` when it is gone.
    fn code(&mut self, path: &Path) -> Option<Code> {
        let mut file = File::open(path).ok()?;
        let meta = file.metadata().ok()?;
        let version = (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
        if let Some(code) = self.seen.get(&version) {
            return Some(*code);
        }
        let mut data = Vec::new();
        file.read_to_end(&mut data).ok()?;
        let code = elf::look(&data);
        self.seen.insert(version, code);
        Some(code)
    }

    fn processes(&self) -> Result<Vec<Process>> {
        let bytes = self.iterate("beeline_processes")?;
        Ok(bytes
            .chunks_exact(size_of::<Process>())
            .filter_map(Process::read)
            .collect())
    }

    fn iterate(&self, name: &str) -> Result<Vec<u8>> {
        object::read(&object::attach_iterator(&self.object, name)?, name)
    }
}

/// The path of an executable, also of one that was replaced since. `None` when the process is gone.
fn path(pid: u32) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let replaced = path.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    Some(replaced.map_or_else(|| path.clone(), |path| OsStr::from_bytes(path).into()))
}

/// The address ranges of mapped code that comes from files, as `/proc/<pid>/map_files` names them.
fn code(maps: &str) -> impl Iterator<Item = &str> {
    maps.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let inode = fields.nth(2)?;
        (rights.contains('x') && inode != "0").then_some(range)
    })
}
