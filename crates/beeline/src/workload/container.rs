//! What cgroup paths tell, as the container runtimes and systemd lay them out.

use super::Names;

/// Characters of a container id that people quote.
const SHORT: usize = 12;

/// Length of the hexadecimal ids of containerd, CRI-O, Docker and Podman.
const ID: usize = 64;

/// Container or unit, for people. `None` for a cgroup that belongs to neither.
pub(super) fn name(cgroup: &str, names: &Names) -> Option<String> {
    let unit = || units(cgroup).find(|unit| unit.ends_with(".service"));
    let named = |id| names.get(id).map_or_else(|| short(id), String::as_str);
    container(cgroup).map(named).or_else(unit).map(Into::into)
}

/// The id of the innermost container around a cgroup: that of `docker-<id>.scope`,
/// `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`, or the name of the cgroup
/// where the runtime does not use systemd.
#[must_use]
pub fn container(cgroup: &str) -> Option<&str> {
    cgroup.rsplit('/').find_map(|part| {
        let id = part.strip_suffix(".scope").unwrap_or(part);
        let id = id.rsplit_once('-').map_or(id, |(_, id)| id);
        is_id(id).then_some(id)
    })
}

/// Whether this is the whole id of a container.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == ID && is_hex(text)
}

/// Whether this can be nothing but an id, the part that people quote or all.
#[must_use]
pub fn is_id_or_short(text: &str) -> bool {
    [SHORT, ID].contains(&text.len()) && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_hexdigit())
}

/// The part of a container's id that people quote.
#[must_use]
pub fn short(id: &str) -> &str {
    &id[..SHORT.min(id.len())]
}

/// The units of systemd around a cgroup, the innermost first.
pub fn units(cgroup: &str) -> impl Iterator<Item = &str> {
    let suffixes = [".service", ".scope", ".slice"];
    cgroup
        .rsplit('/')
        .filter(move |part| suffixes.iter().any(|suffix| part.ends_with(suffix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_told_apart_from_plain_cgroups() {
        let names = Names::new();
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/kubepods/burstable/pod1/{id}"),
            format!("/machine.slice/libpod-{id}.scope/container"),
        ] {
            assert_eq!(
                name(&path, &names).as_deref(),
                Some("0123456789ab"),
                "{path}"
            );
            assert_eq!(container(&path), Some(id.as_str()), "{path}");
        }
        assert_eq!(
            name("/system.slice/nginx.service", &names).as_deref(),
            Some("nginx.service")
        );
        let named = Names::from([(id.clone(), "web".to_owned())]);
        let cgroup = format!("/system.slice/docker-{id}.scope/init.service");
        assert_eq!(name(&cgroup, &named).as_deref(), Some("web"));
        assert_eq!(name("/user.slice/user-0.slice", &names), None);
    }

    #[test]
    fn a_cgroup_is_in_every_unit_around_it() {
        let found: Vec<_> = units("/a.slice/b.service/worker/c.scope").collect();
        assert_eq!(found, ["c.scope", "b.service", "a.slice"]);
    }
}
