//! The processes of a token: which of them end together, and a real chain that goes on when a child is killed.

use super::token::{CHAIN, Scene, TOKEN, sign_at_last, wait_until};
use crate::support::{
    hsm::{Descendant, Hsm},
    mock_node::prevote,
    network::{app, lab, node},
    signer::{Home, Signer},
};
use highwater_core::consensus::KeyType;
use serde_json::json;
use std::{
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_signer_that_lost_its_spawner_asks_for_a_restart_instead_of_limping() {
    let Some((scene, _faults)) = Scene::faulty() else { return };
    let (mut signer, mut session) = scene.start();
    sign_at_last(&mut session, &scene.key, 1);
    let spawner = Descendant::spawner_of(signer.id());
    let family = [vec![spawner.clone()], Descendant::modules_of(signer.id())].concat();
    spawner.kill();
    assert_eq!(signer.exit_code(), Some(70));
    assert_eq!(Descendant::survivors(&family, Duration::from_secs(2)), []);
    let (_signer, mut session) = scene.start();
    sign_at_last(&mut session, &scene.key, 2);
}

#[test]
fn no_process_outlives_the_signer() {
    const SOON: Duration = Duration::from_secs(2);
    let Some((scene, faults)) = Scene::faulty() else { return };
    for (height, (hangs, by_signal)) in (1..).zip([(false, false), (true, false), (false, true), (true, true)]) {
        faults.plan(&["sign pass"]);
        let (mut signer, mut session) = scene.start();
        sign_at_last(&mut session, &scene.key, 10 * height);
        let family = [vec![Descendant::spawner_of(signer.id())], Descendant::modules_of(signer.id())].concat();
        assert_eq!(family.len(), 2, "{family:?}");
        if hangs {
            faults.plan(&["sign hang"]);
            let vote = prevote(10 * height + 9, 0, Some(7));
            thread::scope(|scope| {
                let asking = scope.spawn(|| session.ask_vote(CHAIN, vote).is_ok_and(|answer| answer.is_ok()));
                wait_until(|| faults.left() == 0);
                end(&mut signer, by_signal);
                assert!(!asking.join().unwrap(), "nobody could have signed");
            });
        } else {
            end(&mut signer, by_signal);
        }
        assert_eq!(Descendant::survivors(&family, SOON), [], "hangs: {hangs}, SIGTERM: {by_signal}");
    }
}

fn end(signer: &mut Signer, by_signal: bool) {
    if by_signal {
        let begin = Instant::now();
        signer.sigterm();
        assert_eq!(signer.exit_code(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    } else {
        signer.sigkill();
    }
}

#[test]
fn a_v0_38_chain_is_signed_by_softhsm_through_a_kill_of_the_child() {
    const BLOCKS: u64 = 30;
    let (Some(binary), Some(hsm)) = (lab::cometbft("v0.38.25"), Hsm::softhsm()) else { return };
    let lab = lab::Lab::new();
    let node = node::Node::init(&lab, &binary, "node");
    let mut genesis = node.genesis();
    *node::extension_params(&mut genesis["consensus_params"]).unwrap() = json!("1");
    node.set_genesis(&genesis);
    let chain = node::chain_id(&genesis);
    let key = node.public_key();
    let address = format!("tcp://127.0.0.1:{}", lab::free_port());
    let key_file = node.use_signer(&address);
    hsm.token(TOKEN, 0);
    hsm.import(TOKEN, "imported", "77", &key_file);
    let id = chain.to_string();
    let provider = hsm.provider_with_file(hsm.module(), TOKEN, &[(&id, "imported", &key)]);
    let home = Home::new().chain_with_key(&id, "", &provider).node(&address, &id, "");
    let home = hsm.equip(home).init();

    // The signer comes first: a node exits if it has none within three seconds.
    let mut signer = home.start();
    let mut running = node.start(&app::serve());
    node.wait_for_blocks(&mut running, BLOCKS / 2);
    let killed = Descendant::modules_of(signer.id());
    killed.iter().for_each(Descendant::kill);
    let last = node.wait_for_blocks(&mut running, BLOCKS / 2 + 1) - 1;
    signer.assert_running();
    assert_eq!((killed.len(), key.key_type()), (1, KeyType::Ed25519));
    assert_ne!(Descendant::modules_of(signer.id()), killed, "a new child signs");
    assert!(last >= BLOCKS);
    for height in 1..=last {
        let commit = node.rpc.commit(height);
        assert_eq!(commit.signers(), 1, "height {height}");
        assert!(commit.is_signed_by(&key, &chain), "height {height}");
        node.rpc.block_without_evidence(height);
    }
    node.assert_no_alarm(&running);
}
