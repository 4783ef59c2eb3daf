/* What Holdfast uses of DPDK.
 *
 * DPDK's fast path is static inline and some of its structures change between releases (bit fields,
 * anonymous unions, thread-local errno). Rust sees neither: bursts become functions, mbuf fields
 * become offsets taken from the installed headers, and configuration is reduced to the few
 * functions at the end. So the bindings hold for any release these headers compile with.
 */
#ifndef HOLDFAST_DPDK_WRAPPER_H
#define HOLDFAST_DPDK_WRAPPER_H

/* First: everything else depends on it, and pkg-config only passes it as -include. */
#include <rte_config.h>

#include <stddef.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Where the fields of an mbuf lie, in bytes. */
enum holdfast_mbuf_offset {
	HOLDFAST_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	HOLDFAST_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	HOLDFAST_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	HOLDFAST_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	HOLDFAST_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	HOLDFAST_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
};

/* rte_errno of this thread. */
static inline int
holdfast_errno(void)
{
	return rte_errno;
}

/* Gives the port that many receive and transmit queues, spread by RSS where the port can.
 * *max_queues tells how many it would take. 0 or a negative errno. */
static inline int
holdfast_port_configure(uint16_t port, uint16_t queues, uint16_t *max_queues)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	int rc;

	memset(&info, 0, sizeof(info));
	rc = rte_eth_dev_info_get(port, &info);
	if (rc != 0)
		return rc;
	*max_queues = RTE_MIN(info.max_rx_queues, info.max_tx_queues);
	memset(&conf, 0, sizeof(conf));
	conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads &
		(RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_ESP);
	if (queues > 1 && conf.rx_adv_conf.rss_conf.rss_hf != 0)
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	else
		conf.rx_adv_conf.rss_conf.rss_hf = 0;
	return rte_eth_dev_configure(port, queues, queues, &conf);
}

/* The link's state without waiting for the device. 0 or a negative errno. */
static inline int
holdfast_port_link(uint16_t port, int *up, uint32_t *speed_mbps)
{
	struct rte_eth_link link;
	int rc;

	memset(&link, 0, sizeof(link));
	rc = rte_eth_link_get_nowait(port, &link);
	*up = link.link_status == RTE_ETH_LINK_UP;
	*speed_mbps = link.link_speed;
	return rc;
}

#endif
