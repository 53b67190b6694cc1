/*
 * Makes the pools of tests-data/layouts with OpenZFS's own code in user space (libzpool, what ztest and zdb run on).
 * See layouts.sh for how it is built and run.
 *
 *   gone    mirror-0 of gone-0 and gone-1, then gone-2 and gone-3, which are removed one after the other: what was on
 *           gone-2 goes in part to gone-3, and from there on. Segments are copied 36 KiB at a time, so blocks of
 *           128 KiB lie in several pieces.
 *   spared  draid1:2d:6c:2s; spared-0 goes offline and the first distributed spare takes its place.
 *
 * Every 8 bytes of sector s (of 512 bytes) of object n of POOL/data are the little-endian number n << 48 | s.
 */
#include <sys/zfs_context.h>
#include <sys/spa.h>
#include <sys/vdev.h>
#include <sys/dmu.h>
#include <sys/txg.h>
#include <sys/fs/zfs.h>
#include <zfeature_common.h>

extern uint_t zfs_remove_max_segment;
extern char *spa_config_path;
extern boolean_t dsl_scan_resilvering(struct dsl_pool *);
extern int dsl_prop_set_int(const char *, const char *, zprop_source_t, uint64_t);
extern int spa_removal_get_stats(spa_t *, pool_removal_stat_t *);
extern int spa_vdev_remove(spa_t *, uint64_t, boolean_t);
static const char *dir;

static void must(int error, const char *what)
{
	if (error != 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(error));
		exit(1);
	}
}

static nvlist_t *leaf(const char *pool, int n)
{
	char path[256];
	snprintf(path, sizeof (path), "%s/%s-%d.img", dir, pool, n);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	must(fd < 0 || ftruncate(fd, 320 << 20) != 0 ? errno : 0, path);
	close(fd);
	nvlist_t *nv = fnvlist_alloc();
	fnvlist_add_string(nv, ZPOOL_CONFIG_TYPE, VDEV_TYPE_FILE);
	fnvlist_add_string(nv, ZPOOL_CONFIG_PATH, path);
	fnvlist_add_uint64(nv, ZPOOL_CONFIG_ASHIFT, 12);
	fnvlist_add_uint64(nv, ZPOOL_CONFIG_IS_LOG, 0);
	return (nv);
}

static nvlist_t *parent(const char *type, nvlist_t **child, int n)
{
	nvlist_t *nv = fnvlist_alloc();
	fnvlist_add_string(nv, ZPOOL_CONFIG_TYPE, type);
	fnvlist_add_nvlist_array(nv, ZPOOL_CONFIG_CHILDREN, (const nvlist_t **)child, n);
	fnvlist_add_uint64(nv, ZPOOL_CONFIG_IS_LOG, 0);
	return (nv);
}

static void create(const char *pool, nvlist_t *root)
{
	nvlist_t *props = fnvlist_alloc();
	for (int f = 0; f < SPA_FEATURES; f++) {
		char name[128];
		if (f == SPA_FEATURE_LOG_SPACEMAP || !spa_feature_table[f].fi_zfs_mod_supported)
			continue;
		snprintf(name, sizeof (name), "feature@%s", spa_feature_table[f].fi_uname);
		fnvlist_add_uint64(props, name, 0);
	}
	must(spa_create(pool, root, props, NULL, NULL), "spa_create");
	char name[128];
	snprintf(name, sizeof (name), "%s/data", pool);
	must(dmu_objset_create(name, DMU_OST_OTHER, 0, NULL, NULL, NULL), "dmu_objset_create");
	must(dsl_prop_set_int(name, "compression", ZPROP_SRC_LOCAL, ZIO_COMPRESS_OFF), "compression");
}

/* Adds objects first to last of the given number of blocks of 128 KiB. */
static void fill(const char *pool, spa_t *spa, int objects, int blocks)
{
	const int size = 128 << 10;
	char name[128];
	objset_t *os;
	uint64_t *buf = malloc(size);
	snprintf(name, sizeof (name), "%s/data", pool);
	must(dmu_objset_own(name, DMU_OST_OTHER, B_FALSE, B_FALSE, FTAG, &os), "dmu_objset_own");
	for (int n = 0; n < objects; n++) {
		dmu_tx_t *tx = dmu_tx_create(os);
		dmu_tx_hold_write(tx, DMU_NEW_OBJECT, 0, (uint64_t)blocks * size);
		must(dmu_tx_assign(tx, DMU_TX_WAIT), "dmu_tx_assign");
		uint64_t object = dmu_object_alloc(os, DMU_OT_UINT64_OTHER, size, DMU_OT_NONE, 0, tx);
		for (int b = 0; b < blocks; b++) {
			for (int i = 0; i < size / 8; i++)
				buf[i] = object << 48 | (uint64_t)(b * size / 512 + i / 64);
			dmu_write(os, object, (uint64_t)b * size, size, buf, tx);
		}
		dmu_tx_commit(tx);
		txg_wait_synced(spa_get_dsl(spa), 0);
	}
	dmu_objset_disown(os, B_FALSE, FTAG);
	free(buf);
}

static uint64_t guid_of(const char *pool, int top, int child)
{
	nvlist_t *config, **vdevs;
	uint_t n;
	must(spa_get_stats(pool, &config, NULL, 0), "spa_get_stats");
	vdevs = NULL;
	nvlist_t *vdev = fnvlist_lookup_nvlist(config, ZPOOL_CONFIG_VDEV_TREE);
	must(nvlist_lookup_nvlist_array(vdev, ZPOOL_CONFIG_CHILDREN, &vdevs, &n), "tops");
	vdev = vdevs[top];
	if (child >= 0) {
		must(nvlist_lookup_nvlist_array(vdev, ZPOOL_CONFIG_CHILDREN, &vdevs, &n), "children");
		vdev = vdevs[child];
	}
	return (fnvlist_lookup_uint64(vdev, ZPOOL_CONFIG_GUID));
}

static void remove_top(const char *pool, spa_t *spa, int top)
{
	pool_removal_stat_t stat;
	must(spa_vdev_remove(spa, guid_of(pool, top, -1), B_FALSE), "spa_vdev_remove");
	do {
		txg_wait_synced(spa_get_dsl(spa), 0);
		must(spa_removal_get_stats(spa, &stat), "spa_removal_get_stats");
	} while (stat.prs_state == DSS_SCANNING);
	txg_wait_synced(spa_get_dsl(spa), 0);
}

static void gone(void)
{
	spa_t *spa;
	nvlist_t *side[] = { leaf("gone", 0), leaf("gone", 1) };
	nvlist_t *top[] = { parent(VDEV_TYPE_MIRROR, side, 2), leaf("gone", 2), leaf("gone", 3) };
	create("gone", parent(VDEV_TYPE_ROOT, top, 3));
	must(spa_open("gone", &spa, FTAG), "spa_open");
	zfs_remove_max_segment = 36 << 10;
	fill("gone", spa, 6, 3);
	remove_top("gone", spa, 1);
	fill("gone", spa, 3, 2);
	remove_top("gone", spa, 2);
	fill("gone", spa, 1, 1);
	spa_close(spa, FTAG);
	must(spa_export("gone", NULL, B_FALSE, B_FALSE), "spa_export");
}

static void spared(void)
{
	spa_t *spa;
	nvlist_t *child[6];
	for (int c = 0; c < 6; c++)
		child[c] = leaf("spared", c);
	nvlist_t *draid = parent(VDEV_TYPE_DRAID, child, 6);
	fnvlist_add_uint64(draid, ZPOOL_CONFIG_NPARITY, 1);
	fnvlist_add_uint64(draid, ZPOOL_CONFIG_DRAID_NDATA, 2);
	fnvlist_add_uint64(draid, ZPOOL_CONFIG_DRAID_NSPARES, 2);
	fnvlist_add_uint64(draid, ZPOOL_CONFIG_DRAID_NGROUPS, 4);
	create("spared", parent(VDEV_TYPE_ROOT, &draid, 1));
	must(spa_open("spared", &spa, FTAG), "spa_open");
	fill("spared", spa, 4, 3);
	uint64_t guid = guid_of("spared", 0, 0);
	must(vdev_offline(spa, guid, 0), "vdev_offline");
	nvlist_t *spare = fnvlist_alloc();
	fnvlist_add_string(spare, ZPOOL_CONFIG_TYPE, VDEV_TYPE_DRAID_SPARE);
	fnvlist_add_string(spare, ZPOOL_CONFIG_PATH, "draid1-0-0");
	fnvlist_add_uint64(spare, ZPOOL_CONFIG_ASHIFT, 12);
	fnvlist_add_uint64(spare, ZPOOL_CONFIG_IS_SPARE, 1);
	must(spa_vdev_attach(spa, guid, parent(VDEV_TYPE_ROOT, &spare, 1), B_TRUE, B_FALSE), "spa_vdev_attach");
	txg_wait_synced(spa_get_dsl(spa), 0);
	while (dsl_scan_resilvering(spa_get_dsl(spa)))
		txg_wait_synced(spa_get_dsl(spa), 0);
	fill("spared", spa, 3, 2);
	spa_close(spa, FTAG);
	must(spa_export("spared", NULL, B_FALSE, B_FALSE), "spa_export");
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return (2);
	dir = argv[1];
	/* Not the machine's own list of pools. */
	static char cache[256];
	snprintf(cache, sizeof (cache), "%s/zpool.cache", dir);
	spa_config_path = cache;
	kernel_init(SPA_MODE_READ | SPA_MODE_WRITE);
	gone();
	spared();
	kernel_fini();
	return (0);
}
