//! What sources told of containers.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Names;
use super::source::News;

/// Labels by which the kubelet tells a runtime whose containers they are
/// (pkg/kubelet/types/labels.go of Kubernetes).
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_NAME: &str = "io.kubernetes.pod.name";

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// What people call it.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A pod of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pod<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Container {
    /// The pod that it belongs to, if to any.
    #[must_use]
    pub fn pod(&self) -> Option<Pod<'_>> {
        let label = |key| self.labels.get(key).map(String::as_str);
        Some(Pod {
            namespace: label(POD_NAMESPACE)?,
            name: label(POD_NAME)?,
        })
    }

    /// What people call it: a pod rather than one of its containers.
    #[must_use]
    pub fn label(&self) -> String {
        match self.pod() {
            Some(Pod { namespace, name }) => format!("{namespace}/{name}"),
            None => self.name.clone(),
        }
    }
}

/// All containers that sources told of, by their ids.
#[derive(Debug, Clone, Default)]
pub struct Containers(BTreeMap<usize, HashMap<String, Container>>);

impl Containers {
    /// What is known of the container with this id; `None` as long as nobody told.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Container> {
        self.0.values().find_map(|told| told.get(id))
    }

    /// What people call them.
    #[must_use]
    pub fn names(&self) -> Names {
        let all = self.0.values().flatten();
        all.map(|(id, container)| (id.clone(), container.label()))
            .collect()
    }

    /// Whether any source told what there is, be it nothing.
    #[must_use]
    pub fn are_told(&self) -> bool {
        !self.0.is_empty()
    }

    /// Takes in what a source tells. Returns the ids of containers of which something else is known now.
    pub fn learn(&mut self, source: usize, news: News) -> HashSet<String> {
        let told = match news {
            News::All(now) => return self.replace(source, now),
            News::Is(id, container) => (id, Some(container)),
            News::Gone(id) => (id, None),
        };
        let (id, now) = told;
        let of_source = self.0.entry(source).or_default();
        let before = match now.clone() {
            Some(container) => of_source.insert(id.clone(), container),
            None => of_source.remove(&id),
        };
        (before != now).then_some(id).into_iter().collect()
    }

    fn replace(&mut self, source: usize, now: HashMap<String, Container>) -> HashSet<String> {
        let before = self.0.insert(source, now).unwrap_or_default();
        let now = &self.0[&source];
        let ids = before.keys().chain(now.keys());
        let changed = ids.filter(|id| before.get(*id) != now.get(*id));
        changed.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Container {
        Container {
            name: name.into(),
            ..Container::default()
        }
    }

    fn all(names: &[(&str, &str)]) -> News {
        let all = names.iter();
        News::All(all.map(|(id, name)| ((*id).into(), named(name))).collect())
    }

    #[test]
    fn a_source_replaces_what_it_told_and_leaves_others_alone() {
        let mut known = Containers::default();
        assert!(!known.are_told());
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(
            known.learn(0, all(&[("a", "web"), ("b", "db")])),
            ids(&["a", "b"])
        );
        assert_eq!(known.learn(1, all(&[("c", "job")])), ids(&["c"]));
        assert_eq!(
            known.learn(0, all(&[("a", "web"), ("d", "new")])),
            ids(&["b", "d"])
        );
        assert_eq!(known.get("a"), Some(&named("web")));
        assert_eq!(known.get("b"), None);
        assert_eq!(known.get("c"), Some(&named("job")));
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let mut known = Containers::default();
        let is = |name| News::Is("a".into(), named(name));
        assert_eq!(known.learn(0, is("web")).len(), 1);
        assert_eq!(known.learn(0, is("web")).len(), 0);
        assert_eq!(known.learn(0, is("web-1")).len(), 1);
        assert_eq!(known.learn(0, News::Gone("a".into())).len(), 1);
        assert_eq!(known.learn(0, News::Gone("a".into())).len(), 0);
    }

    #[test]
    fn a_pod_is_known_by_the_labels_of_the_kubelet() {
        let mut container = named("k8s_web");
        assert_eq!(container.pod(), None);
        for (key, value) in [(POD_NAMESPACE, "shop"), (POD_NAME, "web-0")] {
            container.labels.insert(key.into(), value.into());
        }
        let pod = container.pod().unwrap();
        assert_eq!((pod.namespace, pod.name), ("shop", "web-0"));
        assert_eq!(container.label(), "shop/web-0");
    }
}
