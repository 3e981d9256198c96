//! Names from cgroup paths, as the container runtimes and systemd lay them out.

/// Characters of a container id that people quote.
const SHORT: usize = 12;

/// Length of the hexadecimal ids of containerd, CRI-O, Docker and Podman.
const ID: usize = 64;

/// `None` for a cgroup that is neither a container's nor a unit's.
pub(super) fn name(cgroup: &str) -> Option<String> {
    let parts = || cgroup.rsplit('/');
    parts()
        .find_map(container)
        .or_else(|| parts().find_map(unit))
}

/// `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`, or the
/// id alone where the runtime does not use systemd.
fn container(part: &str) -> Option<String> {
    let id = part.strip_suffix(".scope").unwrap_or(part);
    let id = id.rsplit_once('-').map_or(id, |(_, id)| id);
    let is_id = id.len() == ID && id.bytes().all(|c| c.is_ascii_hexdigit());
    is_id.then(|| id[..SHORT].into())
}

fn unit(part: &str) -> Option<String> {
    part.ends_with(".service").then(|| part.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_told_apart_from_plain_cgroups() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/kubepods/burstable/pod1/{id}"),
            format!("/machine.slice/libpod-{id}.scope/container"),
        ] {
            assert_eq!(name(&path).as_deref(), Some("0123456789ab"), "{path}");
        }
        assert_eq!(
            name("/system.slice/nginx.service").as_deref(),
            Some("nginx.service")
        );
        assert_eq!(name("/user.slice/user-0.slice"), None);
    }
}
