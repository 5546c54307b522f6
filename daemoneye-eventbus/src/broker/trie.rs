//! Which subscriptions select a topic: a trie over the segments of the patterns. A lookup visits at most two nodes per
//! segment and level of wildcards, however many other subscriptions there are.

use std::collections::HashMap;

use daemoneye_lib::topic::Pattern;

/// Values under patterns.
pub(crate) struct Trie<T> {
    root: Node<T>,
}

struct Node<T> {
    children: HashMap<Box<str>, Node<T>>,
    any: Option<Box<Node<T>>>,
    here: Vec<(u64, T)>,
    rest: Vec<(u64, T)>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { children: HashMap::new(), any: None, here: Vec::new(), rest: Vec::new() }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> Trie<T> {
    /// Adds a value under `pattern`; `id` is for its removal.
    pub(crate) fn insert(&mut self, pattern: &Pattern, id: u64, value: T) {
        let mut node = &mut self.root;
        for segment in pattern.segments() {
            match segment {
                "#" => {
                    node.rest.push((id, value));
                    return;
                }
                "+" => node = node.any.get_or_insert_default(),
                literal => node = node.children.entry(literal.into()).or_default(),
            }
        }
        node.here.push((id, value));
    }

    /// Removes what was inserted with the same arguments, and every node that is empty then.
    pub(crate) fn remove(&mut self, pattern: &Pattern, id: u64) {
        let segments: Vec<&str> = pattern.segments().collect();
        self.root.remove(&segments, id);
    }

    /// Calls `found` for every value whose pattern selects `topic`.
    pub(crate) fn matches<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a T)) {
        self.root.matches(topic.split('.'), found);
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl<T> Node<T> {
    fn matches<'a, 't>(&'a self, mut rest: impl Iterator<Item = &'t str> + Clone, found: &mut impl FnMut(&'a T)) {
        self.rest.iter().for_each(|(_, value)| found(value));
        let Some(segment) = rest.next() else {
            self.here.iter().for_each(|(_, value)| found(value));
            return;
        };
        if let Some(child) = self.children.get(segment) {
            child.matches(rest.clone(), found);
        }
        if let Some(any) = &self.any {
            any.matches(rest, found);
        }
    }

    fn remove(&mut self, segments: &[&str], id: u64) {
        match segments.split_first() {
            None => self.here.retain(|(other, _)| *other != id),
            Some((&"#", _)) => self.rest.retain(|(other, _)| *other != id),
            Some((&"+", rest)) => {
                if let Some(any) = &mut self.any {
                    any.remove(rest, id);
                }
                self.any = self.any.take().filter(|any| !any.is_empty());
            }
            Some((literal, rest)) => {
                if let Some(child) = self.children.get_mut(*literal) {
                    child.remove(rest, id);
                }
                self.children.retain(|_, child| !child.is_empty());
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(trie: &Trie<String>, topic: &str) -> Vec<String> {
        let mut all = Vec::new();
        trie.matches(topic, &mut |value| all.push(value.clone()));
        all.sort();
        all
    }

    #[test]
    fn a_removed_pattern_leaves_no_node_behind() {
        let mut trie = Trie::default();
        let patterns = ["a.b.c", "a.+.c", "a.#", "#", "+.+"];
        for (id, pattern) in patterns.iter().enumerate() {
            trie.insert(&pattern.parse().unwrap(), id as u64, (*pattern).to_owned());
        }
        assert_eq!(found(&trie, "a.b.c"), ["#", "a.#", "a.+.c", "a.b.c"]);
        for (id, pattern) in patterns.iter().enumerate() {
            trie.remove(&pattern.parse().unwrap(), id as u64);
        }
        assert!(trie.is_empty());
    }

    proptest! {
        #[test]
        fn the_trie_selects_what_the_pattern_itself_matches(
            patterns in proptest::collection::vec("([ab+]\\.){0,4}[ab+#]", 0..12),
            topic in "([ab]\\.){0,4}[ab]",
        ) {
            let mut trie = Trie::default();
            let mut expected = Vec::new();
            for (id, text) in patterns.iter().enumerate() {
                let pattern: Pattern = text.parse().unwrap();
                if pattern.matches(&topic) {
                    expected.push(text.clone());
                }
                trie.insert(&pattern, id as u64, text.clone());
            }
            expected.sort();
            prop_assert_eq!(found(&trie, &topic), expected);
        }
    }
}
