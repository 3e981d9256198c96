//! What the paired benchmarks share.

use rustix::thread::{CpuSet, sched_setaffinity};

/// Both ends share a core, so that the time of waking another is not in the figure.
pub fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("core 0 exists");
}

/// The figure with what is measured, and its ratio to that without, in pairs of (with, without).
pub fn report(what: &str, pairs: impl Iterator<Item = (f64, f64)>) {
    let (mut ratios, mut with): (Vec<f64>, Vec<f64>) = pairs.map(|(a, b)| (a / b, a)).unzip();
    ratios.sort_by(f64::total_cmp);
    with.sort_by(f64::total_cmp);
    let at = |part: usize| ratios[(ratios.len() - 1) * part / 4];
    println!(
        "{what}: {:.2} us; with / without: median {:.4}, quartiles {:.4} to {:.4}",
        with[with.len() / 2],
        at(2),
        at(1),
        at(3),
    );
}
