//! Known answers: RFC 4868 section 2.7 (HMAC), RFC 3602 section 4 (AES-CBC), RFC 5903 section 8 and
//! RFC 8031 appendix A (key exchange). Group 14 has no published vectors; its answers were computed
//! with another implementation of arbitrary precision integers.

use crate::{CbcKey, Group, IntegrityAlgorithm, PrfAlgorithm, PrivateKey};

fn octets(hex: &str) -> Vec<u8> {
    hex::decode(hex).expect("a vector is hexadecimal")
}

/// Key, data, and the outputs with SHA-256, SHA-384 and SHA-512.
const PRF: &[[&str; 5]] = &[
    // PRF-1
    [
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "4869205468657265",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c\
         faea9ea9076ede7f4af152e8b2fa9cb6",
        "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
         daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
    ],
    // PRF-2
    [
        "4a656665",
        "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
         8e2240ca5e69e2c78b3239ecfab21649",
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
         9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    ],
    // PRF-3
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddddddddddddddddddd",
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b\
         2a5ab39dc13814b94e3ab6e101a34f27",
        "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39\
         bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
    ],
    // PRF-4
    [
        "0102030405060708090a0b0c0d0e0f10111213141516171819",
        "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\
         cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e\
         6801dd23c4a7d679ccf8a386c674cffb",
        "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3db\
         a91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd",
    ],
    // PRF-5
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaa",
        "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a\
         65204b6579202d2048617368204b6579204669727374",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6\
         0c2ef6ab4030fe8296248df163f44952",
        "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352\
         6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
    ],
    // PRF-6
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaa",
        "5468697320697320612074657374207573696e672061206c6172676572207468\
         616e20626c6f636b2d73697a65206b657920616e642061206c61726765722074\
         68616e20626c6f636b2d73697a6520646174612e20546865206b6579206e6565\
         647320746f20626520686173686564206265666f7265206265696e6720757365\
         642062792074686520484d414320616c676f726974686d2e",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5\
         a678cc31e799176d3860e6110c46523e",
        "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944\
         b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
    ],
];

/// Key, data, the whole output and the ICV.
const INTEGRITY: &[(IntegrityAlgorithm, PrfAlgorithm, [&str; 4])] = &[
    // AUTH256-1
    (
        IntegrityAlgorithm::HmacSha256_128,
        PrfAlgorithm::HmacSha256,
        [
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "4869205468657265",
            "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7",
            "198a607eb44bfbc69903a0f1cf2bbdc5",
        ],
    ),
    // AUTH256-2
    (
        IntegrityAlgorithm::HmacSha256_128,
        PrfAlgorithm::HmacSha256,
        [
            "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665",
            "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            "167f928588c5cc2eef8e3093caa0e87c9ff566a14794aa61648d81621a2a40c6",
            "167f928588c5cc2eef8e3093caa0e87c",
        ],
    ),
    // AUTH256-3
    (
        IntegrityAlgorithm::HmacSha256_128,
        PrfAlgorithm::HmacSha256,
        [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddddddddddddddddddd",
            "cdcb1220d1ecccea91e53aba3092f962e549fe6ce9ed7fdc43191fbde45c30b0",
            "cdcb1220d1ecccea91e53aba3092f962",
        ],
    ),
    // AUTH256-4
    (
        IntegrityAlgorithm::HmacSha256_128,
        PrfAlgorithm::HmacSha256,
        [
            "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
            "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\
         cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
            "372efcf9b40b35c2115b1346903d2ef42fced46f0846e7257bb156d3d7b30d3f",
            "372efcf9b40b35c2115b1346903d2ef4",
        ],
    ),
    // AUTH384-1
    (
        IntegrityAlgorithm::HmacSha384_192,
        PrfAlgorithm::HmacSha384,
        [
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
         0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "4869205468657265",
            "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee9737a959796489bddbc\
         4c5df61d5b3297b4fb68dab9f1b582c2",
            "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
        ],
    ),
    // AUTH384-2
    (
        IntegrityAlgorithm::HmacSha384_192,
        PrfAlgorithm::HmacSha384,
        [
            "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665\
         4a6566654a6566654a6566654a656665",
            "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184da86a368e9b8e16f5\
         349524ca4e82400cbde0686d403371c9",
            "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
        ],
    ),
    // AUTH384-3
    (
        IntegrityAlgorithm::HmacSha384_192,
        PrfAlgorithm::HmacSha384,
        [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddddddddddddddddddd",
            "809f439be00274321d4a538652164b53554a508184a0c3160353e3428597003d\
         35914a18770f9443987054944b7c4b4a",
            "809f439be00274321d4a538652164b53554a508184a0c316",
        ],
    ),
    // AUTH384-4
    (
        IntegrityAlgorithm::HmacSha384_192,
        PrfAlgorithm::HmacSha384,
        [
            "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20\
         0a0b0c0d0e0f10111213141516171819",
            "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\
         cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
            "5b540085c6e6358096532b2493609ed1cb298f774f87bb5c2ebf182c83cc7428\
         707fb92eab2536a5812258228bc96687",
            "5b540085c6e6358096532b2493609ed1cb298f774f87bb5c",
        ],
    ),
    // AUTH512-1
    (
        IntegrityAlgorithm::HmacSha512_256,
        PrfAlgorithm::HmacSha512,
        [
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
         0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "4869205468657265",
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8\
         ac2878ebd5803f6f0b61dbce5e251ff8789a4722c1be65aea45fd464e89f8f5b",
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
        ],
    ),
    // AUTH512-2
    (
        IntegrityAlgorithm::HmacSha512_256,
        PrfAlgorithm::HmacSha512,
        [
            "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665\
         4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665",
            "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454\
         6aa334ae9fb9afc2184932d8695e397bfa0ffb93466cfcceaae38c833b7dba38",
            "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454",
        ],
    ),
    // AUTH512-3
    (
        IntegrityAlgorithm::HmacSha512_256,
        PrfAlgorithm::HmacSha512,
        [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         dddddddddddddddddddddddddddddddddddd",
            "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8\
         623c7b55cebefccf02d5581acc1c9d5fb1ff68a1de45509fbe4da9a433922655",
            "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8",
        ],
    ),
    // AUTH512-4; the RFC prints 16 octets of key too many, the first ones.
    (
        IntegrityAlgorithm::HmacSha512_256,
        PrfAlgorithm::HmacSha512,
        [
            "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20\
             2122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f40",
            "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\
         cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
            "5e6688e5a3daec826ca32eaea224eff5e700628947470e13ad01302561bab108\
         b8c48cbc6b807dcfbd850521a685babc7eae4a2a2e660dc0e86b931d65503fd2",
            "5e6688e5a3daec826ca32eaea224eff5e700628947470e13ad01302561bab108",
        ],
    ),
];

#[test]
fn prf_answers_as_rfc_4868_says() {
    for [key, data, sha256, sha384, sha512] in PRF {
        let (key, data) = (octets(key), octets(data));
        let (head, tail) = data.split_at(data.len() / 3);
        for (prf, answer) in [
            (PrfAlgorithm::HmacSha256, sha256),
            (PrfAlgorithm::HmacSha384, sha384),
            (PrfAlgorithm::HmacSha512, sha512),
        ] {
            assert_eq!(prf.prf(&key, &[&data]).as_bytes(), octets(answer));
            assert_eq!(prf.prf(&key, &[head, b"", tail]).as_bytes(), octets(answer));
        }
    }
}

#[test]
fn integrity_answers_as_rfc_4868_says() {
    for (algorithm, prf, [key, data, whole, icv]) in INTEGRITY {
        let (key, data, icv) = (octets(key), octets(data), octets(icv));
        assert_eq!(key.len(), algorithm.key_len());
        assert_eq!(prf.prf(&key, &[&data]).as_bytes(), octets(whole));
        assert_eq!(algorithm.sign(&key, &[&data]), icv);
        assert_eq!(algorithm.verify(&key, &[&data], &icv), Ok(()));
        assert!(algorithm.verify(&key, &[&data], &octets(whole)).is_err(), "not truncated");
        assert!(algorithm.verify(&key, &[&data, b"x"], &icv).is_err());
        assert!(algorithm.verify(&key, &[&data], b"").is_err());
    }
}

#[test]
fn prf_plus_chains_blocks_as_rfc_7296_says() {
    let (prf, key, seed) = (PrfAlgorithm::HmacSha256, b"key", b"seed");
    let first = prf.prf(key, &[seed, &[1]]);
    let second = prf.prf(key, &[first.as_bytes(), seed, &[2]]);
    let third = prf.prf(key, &[second.as_bytes(), seed, &[3]]);
    let expected = [first.as_bytes(), second.as_bytes(), &third.as_bytes()[..6]].concat();
    assert_eq!(prf.prf_plus(key, &[b"se", b"ed"], 70).expect("short").as_bytes(), expected);
    assert_eq!(prf.prf_plus(key, &[seed], 255 * 32).map(|output| output.len()), Ok(255 * 32));
    assert!(prf.prf_plus(key, &[seed], 255 * 32 + 1).is_err());
    assert!(prf.prf_plus(key, &[seed], usize::MAX).is_err());
}

#[test]
fn cbc_answers_as_rfc_3602_says() {
    let cases: [(&str, &str, Vec<u8>, &str); 4] = [
        (
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            b"Single block msg".to_vec(),
            "e353779c1079aeb82708942dbe77181a",
        ),
        (
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            (0..0x20).collect(),
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ),
        (
            "6c3ea0477630ce21a2ce334aa746c2cd",
            "c782dc4c098c66cbd9cd27d825682c81",
            b"This is a 48-byte message (exactly 3 AES blocks)".to_vec(),
            "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5\
             021c19216bad525c8579695d83ba2684",
        ),
        (
            "56e47a38c5598974bc46903dba290349",
            "8ce82eefbea0da3c44699ed7db51b7d9",
            (0xa0..0xe0).collect(),
            "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e\
             35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55",
        ),
    ];
    for (key, iv, plain, cipher) in cases {
        let key = CbcKey::new(&octets(key)).expect("16 octets");
        let iv = octets(iv).try_into().expect("16 octets");
        let mut data = plain.clone();
        key.encrypt(&iv, &mut data).expect("whole blocks");
        assert_eq!(data, octets(cipher));
        key.decrypt(&iv, &mut data).expect("whole blocks");
        assert_eq!(data, plain);
    }
}

#[test]
fn cbc_refuses_what_is_not_whole() {
    for len in [16, 24, 32] {
        let key = CbcKey::new(&vec![7; len]).expect("an AES key length");
        let mut data = [1; 33];
        assert!(key.encrypt(&[0; 16], &mut data).is_err());
        assert!(key.decrypt(&[0; 16], &mut data).is_err());
        assert_eq!(data, [1; 33], "refused data stays as it was");
        assert_eq!(key.decrypt(&[0; 16], &mut []), Ok(()));
        let mut blocks = *b"two blocks of text, in the clear";
        key.encrypt(&[9; 16], &mut blocks).expect("whole blocks");
        key.decrypt(&[9; 16], &mut blocks).expect("whole blocks");
        assert_eq!(&blocks, b"two blocks of text, in the clear");
    }
    assert!(CbcKey::new(&[0; 17]).is_err());
}

struct Exchange {
    group: Group,
    private: [&'static str; 2],
    public: [&'static str; 2],
    shared: &'static str,
}

const EXCHANGES: &[Exchange] = &[
    Exchange {
        group: Group::Ecp256,
        private: [
            "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
            "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53",
        ],
        public: [
            "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180\
             5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
            "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63\
             56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
        ],
        shared: "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
    },
    Exchange {
        group: Group::Ecp384,
        private: [
            "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655\
             E35B538041E649EE3FAEF896783AB194",
            "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942\
             E0308312916B8ED2960E4BD55A7448FC",
        ],
        public: [
            "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6\
             DE3AC808ACB4BDB4C88732AEE95F41AA9482ED1FC0EEB9CAFC4984625CCFC23F\
             65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
            "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D\
             0D1AC43A0336DEF96FDA41D0774A3571DCFBEC7AACF3196472169E838430367F\
             66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
        ],
        shared: "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4\
                 D603135569B9E9D09CF5D4A270F59746",
    },
    Exchange {
        group: Group::Curve25519,
        private: [
            "751fb4308655b476b6789b7325f9ea8cddd16a58533ff6d9e60009464a5f9d94",
            "0a54645253290d60ddadd0e030bacd9e5501efdc220755a1e978f1b839a05688",
        ],
        public: [
            "48d5ddd4061257ba166fa3f9bbdb74f1a4e81c089384fa77f790709f0dfbc766",
            "0be7c1f5aad87d7e448662673298a443478b859745179eaf564c79c0ef6eee25",
        ],
        shared: "c74950607a12327f3204d94b6825bfb068b7f8319a9e3708ed3d43ce8130c950",
    },
];

#[test]
fn exchanges_answer_as_their_rfcs_say() {
    for exchange in EXCHANGES {
        for (own, peer) in [(0, 1), (1, 0)] {
            let private = octets(exchange.private[own]);
            let key = PrivateKey::from_bytes(exchange.group, &private).expect("a private value");
            assert_eq!(key.public_bytes(), octets(exchange.public[own]));
            let shared = key.agree(&octets(exchange.public[peer])).expect("a public value");
            assert_eq!(shared.as_bytes(), octets(exchange.shared));
            assert_eq!(key.to_bytes().as_bytes(), private);
        }
    }
}

#[test]
fn group_14_answers_as_other_arithmetic_does() {
    const PUBLIC: [&str; 2] = [
        "3ae26e14ac54744ba175a8b2c76205eebfc4fdb8314c4c40ae2ea47b3c0e28a3",
        "21c74fb5e24f7a708069d9e2e65d1174e3fc13ac55379da11359ce5e8b9883e7",
    ];
    const SHARED: &str = "584edd9902f759ab345f7492593c47de82e4c384e0d287cf6a647507d4e2dc96";
    let keys = [1_u8, 200].map(|first| {
        let exponent: Vec<u8> = (first..first + 40).collect();
        PrivateKey::from_bytes(Group::Modp2048, &exponent).expect("an exponent")
    });
    for (own, peer) in [(0, 1), (1, 0)] {
        assert_eq!(sha256(&keys[own].public_bytes()), PUBLIC[own]);
        let shared = keys[own].agree(&keys[peer].public_bytes()).expect("a public value");
        assert_eq!(sha256(shared.as_bytes()), SHARED);
    }
}

fn sha256(octets: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    assert_eq!(octets.len(), Group::Modp2048.public_len(), "padded to the prime");
    hex::encode(Sha256::digest(octets))
}

#[test]
fn group_14_refuses_values_outside_its_range() {
    let key = PrivateKey::from_bytes(Group::Modp2048, &[3; 40]).expect("an exponent");
    let p: [u8; 256] = octets(GROUP_14_PRIME).try_into().expect("256 octets");
    let p_minus = |less: u8| {
        let mut value = p;
        value[255] -= less;
        value
    };
    let small = |value: u8| {
        let mut octets = [0; 256];
        octets[255] = value;
        octets
    };
    for illegal in [small(0), small(1), p_minus(1), p, [0xFF; 256]] {
        assert!(key.agree(&illegal).is_err());
    }
    for legal in [small(2), p_minus(2)] {
        assert!(key.agree(&legal).is_ok());
    }
    assert!(key.agree(&p[..255]).is_err());
}

const GROUP_14_PRIME: &str = "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74\
         020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437\
         4fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed\
         ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf05\
         98da48361c55d39a69163fa8fd24cf5f83655d23dca3ad961c62f356208552bb\
         9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b\
         e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf695581718\
         3995497cea956ae515d2261898fa051015728e5a8aacaa68ffffffffffffffff";
