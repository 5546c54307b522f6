//! The vectors that a collector answers before anything is left to it: selections and executables of which it is known what has to be
//! filled. Whether a path passes is judged as strictly as what is filled, since `health` says it.

use daemoneye_lib::columns::process_event_column;
use daemoneye_lib::path_test::{KELVIN, LONG_S};
use daemoneye_lib::proto::{CollectionCapabilities, ColumnSelection, DetectionResult, PathQuestion, PathTest};

/// What the columns of hashes say about the algorithm.
const ALGORITHM: &str = "sha256";
/// The hashes are those of FIPS 180-4's examples.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A selection, an executable, and its hash where the selection has one.
#[derive(Debug, Clone)]
pub(super) struct Vector {
    columns: &'static [&'static str],
    only_where: Vec<PathTest>,
    path: String,
    content: &'static [u8],
    hash: Option<&'static str>,
}

/// Those of the columns, and those of the questions that it announces.
pub(super) fn of(can: &CollectionCapabilities) -> Vec<Vector> {
    let plain = |columns, content, hash| Vector {
        columns,
        content,
        hash,
        only_where: Vec::new(),
        path: "/usr/bin/true".to_owned(),
    };
    let mut vectors = vec![
        plain(&[], b"abc".as_slice(), None),
        plain(&["pid", "command_line", "user"], b"", None),
        plain(&["executable_hash"], b"abc", Some(ABC)),
        plain(&["name", "hash_status"], b"", Some(EMPTY)),
    ];
    let announced = questions().filter(|(question, ..)| can.path_questions.contains(&(*question).into()));
    vectors.extend(announced.map(|(question, text, path, passes)| Vector {
        columns: &["executable_hash"],
        only_where: vec![PathTest::new(question, text)],
        path,
        content: b"abc",
        hash: passes.then_some(ABC),
    }));
    vectors
}

/// A question, its text, a path, and whether that passes.
fn questions() -> impl Iterator<Item = (PathQuestion, &'static str, String, bool)> {
    use PathQuestion::{BaseName, Contains, Equals};
    let told = [
        (Contains, "/tmp/", "/var/TMP/x", true),
        (Contains, "/tmp/", "/tmp", false),
        (Contains, "a*b", "/opt/ab", false),
        (Equals, "/usr/bin/sudo", "/usr/bin/sudo", true),
        (Equals, "/usr/bin/sudo", "/usr/bin/sudoedit", false),
        (Equals, "/usr/bin/sudo", "/srv/usr/bin/sudo", false),
        (BaseName, "sshd", "/usr/sbin/SSHD", true),
        (BaseName, "cmd.exe", "C:\\Windows\\cmd.exe", true),
        (BaseName, "sshd", "/srv/sshd/run", false),
        (BaseName, "shd", "/usr/sbin/sshd", false),
    ];
    let folded = [Contains, Equals, BaseName].map(|question| {
        let text = if question == BaseName { "ks\u{e4}" } else { "/opt/ks\u{e4}" };
        (question, text, format!("/opt/{KELVIN}{LONG_S}\u{e4}"), true)
    });
    told.into_iter().map(|(question, text, path, passes)| (question, text, path.to_owned(), passes)).chain(folded)
}

impl Vector {
    pub(super) fn selection(&self) -> ColumnSelection {
        ColumnSelection {
            columns: self.columns.iter().map(ToString::to_string).collect(),
            rehearsal: Some(self.content.to_vec()),
            only_where: self.only_where.clone(),
            rehearsal_path: self.path.clone(),
        }
    }

    /// Nothing that was asked for is left out, a hash is the hash, and a path passes where it does.
    pub(super) fn judge(&self, result: &DetectionResult) -> Result<(), String> {
        if !result.success {
            return Err(format!("it cannot answer: {}", result.error));
        }
        let asked = self.columns.join(", ");
        if let Some(column) = result.left_empty.iter().find(|column| process_event_column(column).is_none()) {
            return Err(format!("it would leave out {column}, and there is no such column"));
        }
        if let Some(column) = result.left_empty.iter().find(|column| self.columns.contains(&column.as_str())) {
            return Err(format!("asked for {asked} it would leave out {column}"));
        }
        let hash = result.hash.as_ref().map(|hash| (hash.algorithm.as_str(), hash.hash.as_str()));
        match (self.hash, self.only_where.last()) {
            (Some(_), Some(test)) if hash.is_none() => {
                Err(format!("it does not see that {} passes: {test}", self.path))
            }
            (Some(expected), _) if hash != Some((ALGORITHM, expected)) => {
                Err(format!("asked for {asked} it does not hash as {ALGORITHM} does"))
            }
            (None, Some(test)) if hash.is_some() => Err(format!("it takes {} for one that passes: {test}", self.path)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemoneye_lib::path_test::FoldedPath;
    use daemoneye_lib::proto::HashResult;

    fn answer(left_empty: &[&str], algorithm: &str, hash: Option<&str>) -> DetectionResult {
        let hash =
            hash.map(|hash| HashResult { algorithm: algorithm.into(), hash: hash.into(), ..HashResult::default() });
        let left_empty = left_empty.iter().map(ToString::to_string).collect();
        DetectionResult { success: true, left_empty, hash, ..DetectionResult::default() }
    }

    fn announcing(questions: &[PathQuestion]) -> CollectionCapabilities {
        let path_questions = questions.iter().map(|question| (*question).into()).collect();
        CollectionCapabilities { path_questions, ..CollectionCapabilities::default() }
    }

    #[test]
    fn a_collector_that_leaves_out_what_is_asked_for_or_hashes_otherwise_fails_its_vectors() {
        let hashes = ["executable_hash", "hash_algorithm", "hash_status"];
        let vectors = of(&announcing(&[]));
        for vector in &vectors {
            let left_empty: &[&str] = if vector.hash.is_some() { &[] } else { &hashes };
            vector.judge(&answer(left_empty, ALGORITHM, vector.hash)).unwrap();
        }
        let [.., abc, _] = vectors.as_slice() else { panic!() };
        for (wrong, why) in [
            (answer(&hashes, ALGORITHM, Some(ABC)), "would leave out executable_hash"),
            (answer(&[], "sha512", Some(ABC)), "does not hash as sha256"),
            (answer(&[], ALGORITHM, Some(EMPTY)), "does not hash as sha256"),
            (answer(&[], ALGORITHM, None), "does not hash as sha256"),
            (answer(&["nothing"], ALGORITHM, Some(ABC)), "no such column"),
            (DetectionResult { error: "no".into(), ..DetectionResult::default() }, "cannot answer: no"),
        ] {
            let told = abc.judge(&wrong).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn each_announced_question_has_vectors_that_a_collector_with_another_idea_of_it_fails() {
        use PathQuestion::{BaseName, Contains, Equals};
        type Idea = fn(&PathTest, &str) -> bool;
        let judged = |question: PathQuestion, idea: Idea| -> Result<(), String> {
            let vectors = of(&announcing(&[question]));
            assert!(vectors.len() > of(&announcing(&[])).len());
            vectors.iter().filter(|vector| !vector.only_where.is_empty()).try_for_each(|vector| {
                let passes = vector.only_where.iter().any(|test| idea(test, &vector.path));
                vector.judge(&answer(&[], ALGORITHM, passes.then_some(ABC)))
            })
        };
        for question in [BaseName, Contains, Equals] {
            judged(question, |test, path| test.passes(&FoldedPath::new(path))).unwrap();
            let wrong: [Idea; 4] = [
                |_, _| true,
                |_, _| false,
                |test, path| test.passes(&FoldedPath::new(&path.replace(KELVIN, "?"))),
                |test, path| path.ends_with(&test.text),
            ];
            for idea in wrong {
                let why = judged(question, idea).unwrap_err();
                assert!(why.contains("passes: executable_path"), "{why}");
            }
        }
    }
}
