//! Every proof for every tree of 1 to 300 entries, and a checkpoint's note, judged by `tlog_tiles` and `signed_note`.

use std::convert::Infallible;

use daemoneye_lib::ledger::Hash;
use daemoneye_lib::ledger::checkpoint::Checkpoint;
use daemoneye_lib::ledger::note::NoteSigner;
use daemoneye_lib::ledger::tree::{self, Nodes, TreeHash};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::tlog::{self, check_record, check_tree};

const MOST: u64 = 300;
const SHA: TreeHash = TreeHash::Sha256;

/// Complete subtrees of the first leaves, level by level.
struct Levels(Vec<Vec<Hash>>);

impl Levels {
    fn over(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|level| level.len() > 1) {
            let above = last.chunks_exact(2).map(|pair| SHA.node(&pair[0], &pair[1])).collect();
            levels.push(above);
        }
        Self(levels)
    }
}

impl Nodes for Levels {
    type Error = Infallible;

    fn node(&mut self, level: u32, index: u64) -> Result<Hash, Infallible> {
        Ok(self.0[level as usize][index as usize])
    }
}

fn theirs(proof: Option<Vec<Hash>>) -> Vec<tlog::Hash> {
    proof.unwrap().into_iter().map(tlog::Hash).collect()
}

#[test]
fn tlog_tiles_accepts_every_proof_of_trees_up_to_300_entries() {
    let entries: Vec<Vec<u8>> = (0..MOST).map(|n| format!("entry {n}").into_bytes()).collect();
    let leaves: Vec<Hash> = entries.iter().map(|entry| SHA.leaf(entry)).collect();
    for (entry, leaf) in entries.iter().zip(&leaves) {
        assert_eq!(tlog::record_hash(entry).0, *leaf);
    }
    let mut nodes = Levels::over(leaves.clone());
    let roots: Vec<tlog::Hash> =
        (0..=MOST).map(|size| tlog::Hash(tree::root(&mut nodes, SHA, size).unwrap())).collect();
    let mut accepted = 0;
    for size in 1..=MOST {
        let root = roots[size as usize];
        for index in 0..size {
            let proof = theirs(tree::inclusion(&mut nodes, SHA, index, size).unwrap());
            check_record(&proof, size, root, index, tlog::Hash(leaves[index as usize])).unwrap();
            accepted += 1;
        }
        for old in 1..=size {
            let proof = theirs(tree::consistency(&mut nodes, SHA, old, size).unwrap());
            check_tree(&proof, size, root, old, roots[old as usize]).unwrap();
            accepted += 1;
        }
    }
    assert_eq!(accepted, MOST * (MOST + 1));
}

#[test]
fn signed_note_verifies_a_checkpoint() {
    let origin = "daemoneye/3d1219c7/audit";
    let signer = NoteSigner::new(origin, &[9; 32]).unwrap();
    let note = Checkpoint { origin: origin.into(), size: 42, root: [1; 32] }.sign(&signer).unwrap();
    let verifier = StandardVerifier::new(&signer.verifier().to_string()).unwrap();
    let verifiers = VerifierList::new(vec![Box::new(verifier)]);
    let parsed = Note::from_bytes(note.as_bytes()).unwrap();
    let (verified, _) = parsed.verify(&verifiers).unwrap();
    assert_eq!(verified.len(), 1);
}
