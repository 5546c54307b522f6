// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//
// Announces every fork, exec and exit of a process, and that it was renamed, through one ring buffer; procmond loads it.
//
// This file, and no other of the project, may also be used under the GPL, version 2: the kernel lends its memory-reading
// helpers only to programs whose licence string names that licence, and the string below is the one of the two that it knows.
//
// Invariants: a record is written whole or counted in `lost`; nothing here waits, and every loop has a bound. Each record
// carries the count, so the reader learns exact losses without a system call. Nothing is interpreted: the reader
// turns bytes into columns. Byte layout: docs/formats.md, "Ring record". Kernel types are declared as far as they are used;
// their offsets are relocated at load.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define RELOCATED __attribute__((preserve_access_index))
// Reads a field of a kernel object behind a plain address.
#define READ(into, object, field) read_kernel(&(into), sizeof(into), &(object)->field)
#define OFFSET(type, field) __builtin_preserve_field_info(((type *)0)->field, 0)
#define LIVE(field) (*(volatile __typeof__(field) *)&(field))
#define EXISTS(object, field) __builtin_preserve_field_info((object)->field, 2)
// Keeps the compiler from reasoning about a value that the verifier has to follow as well.
#define OPAQUE(value) asm volatile("" : "+r"(value))

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*read_user)(void *into, u32 size, const void *from) = (void *)112;
static long (*read_kernel)(void *into, u32 size, const void *from) = (void *)113;
static long (*read_kernel_string)(void *into, u32 size, const void *from) = (void *)115;
static u64 (*boot_time_ns)(void) = (void *)125;
static long (*ring_output)(void *ring, void *record, u64 size, u64 flags) = (void *)130;

struct list_head {
    struct list_head *next;
} RELOCATED;

struct kernfs_node___before {
    struct kernfs_node *parent;
} RELOCATED;

struct kernfs_node {
    struct kernfs_node *__parent;
    const char *name;
} RELOCATED;

struct cgroup_root {
    int hierarchy_id;
    char name[64];
} RELOCATED;

struct cgroup {
    struct kernfs_node *kn;
    struct cgroup_root *root;
} RELOCATED;

struct cgrp_cset_link {
    struct cgroup *cgrp;
    struct list_head cgrp_link;
} RELOCATED;

struct css_set {
    struct cgroup *dfl_cgrp;
    struct list_head cgrp_links;
} RELOCATED;

struct hlist_bl_node {
    struct hlist_bl_node **pprev;
} RELOCATED;

struct qstr {
    const char *name;
} RELOCATED;

struct dentry {
    struct hlist_bl_node d_hash;
    struct dentry *d_parent;
    struct qstr d_name;
} RELOCATED;

struct vfsmount {
    struct dentry *mnt_root;
} RELOCATED;

struct mount {
    struct mount *mnt_parent;
    struct dentry *mnt_mountpoint;
    struct vfsmount mnt;
} RELOCATED;

struct path {
    struct vfsmount *mnt;
    struct dentry *dentry;
} RELOCATED;

struct super_block {
    u32 s_dev;
} RELOCATED;

struct timespec64 {
    long long tv_sec;
    long tv_nsec;
};

// Times have been flat fields since 6.11, and were called otherwise before 6.6.
struct inode {
    unsigned long i_ino;
    struct super_block *i_sb;
    long long i_size;
    long long i_mtime_sec, i_ctime_sec;
    u32 i_mtime_nsec, i_ctime_nsec;
} RELOCATED;

struct inode___middle {
    struct timespec64 i_mtime, __i_mtime, __i_ctime;
} RELOCATED;

struct inode___before {
    struct timespec64 i_mtime, i_ctime;
} RELOCATED;

struct file {
    struct path f_path;
    struct inode *f_inode;
} RELOCATED;

struct fs_struct {
    struct path pwd;
} RELOCATED;

struct mm_struct {
    unsigned long start_code, start_brk, start_stack, arg_start, arg_end;
    struct file *exe_file;
} RELOCATED;

typedef struct {
    u32 val;
} kuid_t;

typedef struct {
    u32 val;
} kgid_t;

struct cred {
    kuid_t uid, euid;
    kgid_t gid;
} RELOCATED;

struct ns_common {
    u32 inum;
} RELOCATED;

struct pid_namespace {
    struct ns_common ns;
} RELOCATED;

struct upid {
    int nr;
    struct pid_namespace *ns;
};

struct pid {
    u32 level;
    struct upid numbers[1];
} RELOCATED;

struct tty_driver {
    int major, minor_start;
} RELOCATED;

struct tty_struct {
    int index;
    struct tty_driver *driver;
} RELOCATED;

typedef struct {
    int counter;
} atomic_t;

struct signal_struct {
    atomic_t live;
    int group_exit_code;
    u32 flags;
    struct pid *pids[4];
    struct tty_struct *tty;
} RELOCATED;

struct task_struct {
    int exit_code, pid, tgid;
    u32 in_execve : 1;
    struct task_struct *real_parent, *group_leader;
    u64 start_boottime;
    struct mm_struct *mm;
    struct cred *cred;
    struct fs_struct *fs;
    struct pid *thread_pid;
    struct signal_struct *signal;
    struct css_set *cgroups;
    char comm[16];
} RELOCATED;

struct linux_binprm {
    const char *filename;
} RELOCATED;

enum { EXEC = 1, FORK = 2, EXIT = 3, RENAME = 4 };

enum {
    EXE_CUT = 1,
    CWD_CUT = 2,
    CGROUP_CUT = 4,
    FILENAME_CUT = 8,
    EXE_UNHASHED = 16,
    CWD_UNHASHED = 32,
};

// PIDTYPE_SID of the kernel, the same since 4.19.
#define SESSION 3
// SIGNAL_GROUP_EXIT: group_exit_code counts, not the leader's own.
#define GROUP_EXIT 4

// The kernel keeps a mark of its own in a bit above these.
#define NANOSECONDS 0x3fffffff
// One renaming a second of each process: whoever renames itself without pause would drown every other announcement.
#define RENAMING_NS 1000000000ULL
// Directories of a path and nested mounts; a deeper path is read from /proc.
#define STEPS 48
// Cgroup levels; container engines nest about eight.
#define LEVELS 16
// Hierarchies of cgroup v1: at most 16 with a controller plus named ones.
#define HIERARCHIES 20
// NAME_MAX and the terminator.
#define NAME_BYTES 256
#define FILENAME_BYTES 1024
#define PATH_BYTES 2048
#define ARGV_BYTES 4096
// What precedes argv ends below this: 1024 + 2 * (2048 + 256) + 2048 + 256.
#define OFFSETS 0x1fff
#define RECORDS 0x3fff

struct head {
    u32 kind;
    u32 pid;
    u64 time_ns;
    u64 start_ns;
    u64 lost;
};

struct fork_record {
    struct head head;
    u64 parent_start_ns;
    u32 parent;
    u32 uid, gid, euid;
    u32 session;
    u32 tty;
};

struct exit_record {
    struct head head;
    u32 wait_status;
    u32 zero;
};

struct rename_record {
    struct head head;
    char name[16];
};

struct exec_record {
    struct head head;
    u64 image[3];
    u64 argv_bytes;
    struct {
        u64 inode, size;
        long long modified_s, changed_s;
        u32 modified_ns, changed_ns;
        u32 device, zero;
    } file;
    u32 parent;
    u32 uid, gid, euid;
    u32 session;
    u32 tty;
    u32 pid_namespace;
    u32 namespace_pid;
    u16 flags;
    u16 filename, exe, cwd, cgroup, argv;
    u32 end;
    char name[16];
    char text[RECORDS + 1];
};

struct {
    u32 (*type)[27];
    u32 (*max_entries)[2 * 1024 * 1024];
} RING SEC(".maps");

struct {
    u32 (*type)[6];
    u32 (*max_entries)[1];
    u32 *key;
    struct exec_record *value;
} SCRATCH SEC(".maps");

// When a process was last announced as renamed, and whether it has taken another name since.
struct renamed {
    u64 start_ns, at_ns;
    u64 again;
};

// About 90 bytes each. One that is forgotten early is announced once more.
struct {
    u32 (*type)[9];
    u32 (*max_entries)[4096];
    u32 *key;
    struct renamed *value;
} RENAMED SEC(".maps");

// Records that found no room, of all kinds and processors.
static volatile u64 lost;

char licence[] SEC("license") = "GPL";

INLINE void announce(void *record, u64 size) {
    if (ring_output(&RING, record, size, 0) != 0)
        __sync_fetch_and_add(&lost, 1);
}

INLINE void begin(struct head *head, u32 kind, struct task_struct *task) {
    head->kind = kind;
    head->pid = task->tgid;
    head->time_ns = boot_time_ns();
    head->start_ns = task->group_leader->start_boottime;
    head->lost = lost;
}

// Appends a string with its terminator. The end lives in memory and nowhere else: in a register the verifier would follow
// every length that it can have, and give up.
INLINE void append(struct exec_record *record, u32 room, const char *string) {
    u32 at = LIVE(record->end) & OFFSETS;
    long length = read_kernel_string(record->text + at, room, string);
    if (length > 0)
        LIVE(record->end) = at + (u32)length;
}

// Closes a section of the text and gives its length; one that had to be cut is empty.
INLINE u16 close(struct exec_record *record, u32 start, int cut, u16 flag) {
    if (cut) {
        LIVE(record->end) = start;
        LIVE(record->flags) |= flag;
    }
    return LIVE(record->end) - start;
}

// Appends the steps of a path from the leaf to the root of its mount tree. Returns whether that was too far. A global function
// is verified once for all its callers, inlined it would be verified again for each way in which the walk before it may end:
// 284,000 instructions, 0.3 s of every start.
__attribute__((noinline)) int append_path(u64 from, u32 unhashed) {
    const u32 zero = 0;
    struct exec_record *record = map_lookup(&SCRATCH, &zero);
    struct path *path = (void *)from;
    struct dentry *dentry = 0, *root = 0, *parent = 0;
    struct vfsmount *vfsmount = 0;
    struct mount *mount, *above = 0;
    struct hlist_bl_node **hashed = 0;
    const char *name;
    u32 start;

    if (!record)
        return 1;
    start = LIVE(record->end);
    READ(dentry, path, dentry);
    READ(vfsmount, path, mnt);
    mount = (void *)vfsmount - OFFSET(struct mount, mnt);
    READ(hashed, dentry, d_hash.pprev);
    READ(root, mount, mnt.mnt_root);
    if (!hashed && dentry != root)
        LIVE(record->flags) |= unhashed;
#pragma clang loop unroll(disable)
    for (u32 step = 0; step < STEPS; step++) {
        READ(root, mount, mnt.mnt_root);
        if (dentry == root) {
            if (READ(above, mount, mnt_parent) != 0)
                return 1;
            if (above == mount)
                return 0;
            READ(dentry, mount, mnt_mountpoint);
            mount = above;
            continue;
        }
        if (LIVE(record->end) - start >= PATH_BYTES || READ(name, dentry, d_name.name) != 0 ||
            READ(parent, dentry, d_parent) != 0)
            return 1;
        append(record, NAME_BYTES, name);
        // What is in no directory: an executable in memory.
        if (parent == dentry)
            return 0;
        dentry = parent;
    }
    return 1;
}

INLINE struct kernfs_node *above(struct kernfs_node *node) {
    struct kernfs_node *parent = 0;
    struct kernfs_node___before *before = (void *)node;
    if (EXISTS(node, __parent))
        READ(parent, node, __parent);
    else
        READ(parent, before, parent);
    return parent;
}

// Where the unified tree exists but does not place the process, a tree of version 1 may: systemd's own, else the last
// mounted, as `sources/procfs` chooses.
INLINE struct kernfs_node *placed_by_version_1(struct css_set *set) {
    struct list_head *head = (void *)set + OFFSET(struct css_set, cgrp_links), *next = 0;
    struct kernfs_node *chosen = 0, *node;
    struct cgroup *cgroup;
    struct cgroup_root *root;
    int best = 0;

    READ(next, head, next);
#pragma clang loop unroll(disable)
    for (u32 step = 0; step < HIERARCHIES; step++) {
        if (next == head || !next)
            break;
        struct cgrp_cset_link *link = (void *)next - OFFSET(struct cgrp_cset_link, cgrp_link);
        int rank = 0;
        u64 name = 0;
        READ(cgroup, link, cgrp);
        READ(node, cgroup, kn);
        READ(root, cgroup, root);
        READ(rank, root, hierarchy_id);
        read_kernel(&name, sizeof(name), &root->name);
        READ(next, link, cgrp_link.next);
        // The letters "systemd" and the terminator.
        if (name == 0x00646d6574737973ULL)
            rank = 0x7fffffff;
        if (rank > best && above(node)) {
            best = rank;
            chosen = node;
        }
    }
    return chosen;
}

INLINE int append_cgroup(struct exec_record *record, u32 start, struct task_struct *task) {
    struct css_set *set = task->cgroups;
    struct kernfs_node *node = set->dfl_cgrp->kn;
    const char *name;

    if (!above(node))
        node = placed_by_version_1(set);
    if (!node)
        return 0;
#pragma clang loop unroll(disable)
    for (u32 level = 0; level < LEVELS; level++) {
        struct kernfs_node *parent = above(node);
        if (!parent)
            return 0;
        if (LIVE(record->end) - start >= PATH_BYTES || READ(name, node, name) != 0)
            return 1;
        append(record, NAME_BYTES, name);
        node = parent;
    }
    return 1;
}

INLINE u32 session_of(struct task_struct *task) {
    struct pid *session = task->signal->pids[SESSION];
    struct upid leader = {};
    read_kernel(&leader, sizeof(leader), (void *)session + OFFSET(struct pid, numbers));
    return leader.nr;
}

INLINE u32 tty_of(struct task_struct *task) {
    struct tty_struct *tty = task->signal->tty;
    if (!tty)
        return 0;
    u32 minor = (u32)tty->driver->minor_start + (u32)tty->index;
    return (minor & 0xff) | (u32)tty->driver->major << 8 | (minor & ~0xffu) << 12;
}

INLINE void place(struct exec_record *record, struct task_struct *task) {
    struct pid *pid = task->thread_pid;
    struct upid inner = {};
    u32 level = pid->level;

    read_kernel(&inner, sizeof(inner), (void *)pid + OFFSET(struct pid, numbers) + (u64)level * sizeof(inner));
    record->namespace_pid = inner.nr;
    READ(record->pid_namespace, inner.ns, ns.inum);
    record->session = session_of(task);
    record->tty = tty_of(task);
}

// What tells one content of the executable from the next. Some file systems show other devices or inodes than these; the
// reader compares before it believes.
INLINE void identify(struct exec_record *record, struct file *file) {
    struct inode *inode = 0;
    struct super_block *block = 0;
    struct timespec64 modified = {}, changed = {};

    READ(inode, file, f_inode);
    struct inode___middle *middle = (void *)inode;
    struct inode___before *before = (void *)inode;
    READ(block, inode, i_sb);
    record->file.inode = 0;
    READ(record->file.inode, inode, i_ino);
    READ(record->file.size, inode, i_size);
    READ(record->file.device, block, s_dev);
    if (EXISTS(inode, i_ctime_sec)) {
        u32 nanoseconds = 0;
        READ(modified.tv_sec, inode, i_mtime_sec);
        READ(nanoseconds, inode, i_mtime_nsec);
        modified.tv_nsec = nanoseconds;
        READ(changed.tv_sec, inode, i_ctime_sec);
        READ(nanoseconds, inode, i_ctime_nsec);
        changed.tv_nsec = nanoseconds;
    } else if (EXISTS(middle, __i_ctime)) {
        READ(changed, middle, __i_ctime);
        if (EXISTS(middle, __i_mtime))
            READ(modified, middle, __i_mtime);
        else
            READ(modified, middle, i_mtime);
    } else {
        READ(modified, before, i_mtime);
        READ(changed, before, i_ctime);
    }
    record->file.modified_s = modified.tv_sec;
    record->file.modified_ns = (u32)modified.tv_nsec & NANOSECONDS;
    record->file.changed_s = changed.tv_sec;
    record->file.changed_ns = (u32)changed.tv_nsec & NANOSECONDS;
}

INLINE int append_argv(struct exec_record *record, u32 start, struct mm_struct *mm) {
    u64 begin = mm->arg_start, size = mm->arg_end - begin;
    record->argv_bytes = size;
    if (size > ARGV_BYTES)
        size = ARGV_BYTES;
    OPAQUE(size);
    // Said twice: the compiler knows it by now, the verifier may have lost it.
    if (size > ARGV_BYTES || read_user(record->text + (start & OFFSETS), size, (void *)begin) != 0)
        return 1;
    LIVE(record->end) = start + (u32)size;
    return 0;
}

SEC("tp_btf/sched_process_exec") int process_exec(u64 *context) {
    struct task_struct *task = (void *)context[0];
    struct linux_binprm *program = (void *)context[2];
    struct mm_struct *mm = task->mm;
    const u32 zero = 0;
    struct exec_record *record = map_lookup(&SCRATCH, &zero);
    struct file *file = 0;
    struct fs_struct *fs = 0;
    u32 at;
    int cut;

    if (!record)
        return 0;
    begin(&record->head, EXEC, task);
    record->parent = task->real_parent->tgid;
    record->image[0] = mm->start_code;
    record->image[1] = mm->start_stack;
    record->image[2] = mm->start_brk;
    record->uid = task->cred->uid.val;
    record->gid = task->cred->gid.val;
    record->euid = task->cred->euid.val;
    read_kernel(record->name, sizeof(record->name), &task->comm);
    place(record, task);

    LIVE(record->flags) = 0;
    LIVE(record->end) = 0;
    append(record, FILENAME_BYTES, program->filename);
    record->filename = close(record, 0, 0, 0);
    if (LIVE(record->end) == FILENAME_BYTES)
        LIVE(record->flags) |= FILENAME_CUT;
    at = LIVE(record->end);
    READ(file, mm, exe_file);
    identify(record, file);
    cut = append_path((u64)file + OFFSET(struct file, f_path), EXE_UNHASHED);
    record->exe = close(record, at, cut, EXE_CUT);
    at = LIVE(record->end);
    READ(fs, task, fs);
    cut = append_path((u64)fs + OFFSET(struct fs_struct, pwd), CWD_UNHASHED);
    record->cwd = close(record, at, cut, CWD_CUT);
    at = LIVE(record->end);
    record->cgroup = close(record, at, append_cgroup(record, at, task), CGROUP_CUT);
    at = LIVE(record->end);
    record->argv = close(record, at, append_argv(record, at, mm), 0);

    u64 size = __builtin_offsetof(struct exec_record, text) + (u64)LIVE(record->end);
    announce(record, size & RECORDS);
    return 0;
}

SEC("tp_btf/sched_process_fork") int process_fork(u64 *context) {
    struct task_struct *child = (void *)context[1], *parent = child->real_parent;
    struct fork_record record = {};

    if (child->pid != child->tgid)
        return 0;
    begin(&record.head, FORK, child);
    record.parent = parent->tgid;
    record.parent_start_ns = parent->group_leader->start_boottime;
    record.uid = child->cred->uid.val;
    record.gid = child->cred->gid.val;
    record.euid = child->cred->euid.val;
    record.session = session_of(child);
    record.tty = tty_of(child);
    announce(&record, sizeof(record));
    return 0;
}

INLINE void announce_exit(struct task_struct *task) {
    struct exit_record record = {};
    struct signal_struct *signal = task->signal;
    struct renamed *last;

    begin(&record.head, EXIT, task);
    record.wait_status = signal->flags & GROUP_EXIT ? signal->group_exit_code : task->group_leader->exit_code;
    last = map_lookup(&RENAMED, &record.head.pid);
    if (last && last->start_ns == record.head.start_ns && last->again) {
        struct rename_record name = {};
        begin(&name.head, RENAME, task);
        read_kernel(name.name, sizeof(name.name), &task->group_leader->comm);
        announce(&name, sizeof(name));
        record.head.lost = lost;
    }
    announce(&record, sizeof(record));
}

// Since 6.16 the tracepoint itself says whether this thread was the last.
SEC("tp_btf/sched_process_exit") int process_exit(u64 *context) {
    if ((u8)context[1])
        announce_exit((void *)context[0]);
    return 0;
}

// Before, two threads that end at the same moment may both find nobody alive: the second notice finds no process.
SEC("tp_btf/sched_process_exit") int process_exit_before(u64 *context) {
    struct task_struct *task = (void *)context[0];
    if (task->signal->live.counter == 0)
        announce_exit(task);
    return 0;
}

// A single bit, whose place the compiler would take for fixed.
INLINE int in_exec(struct task_struct *task) {
    u64 bits = 0;
    if (!EXISTS(task, in_execve))
        return 0;
    read_kernel(&bits, __builtin_preserve_field_info(task->in_execve, 1), (void *)task + OFFSET(struct task_struct, in_execve));
    bits <<= __builtin_preserve_field_info(task->in_execve, 4);
    return bits >> __builtin_preserve_field_info(task->in_execve, 5) != 0;
}

// Whether a process was announced as renamed a moment ago. What follows within the second is left to the next snapshot, or to
// its end.
INLINE int is_known_renamed(struct head *head) {
    struct renamed *last = map_lookup(&RENAMED, &head->pid), now = {};
    if (last && last->start_ns == head->start_ns && head->time_ns - last->at_ns < RENAMING_NS) {
        last->again = 1;
        return 1;
    }
    now.start_ns = head->start_ns;
    now.at_ns = head->time_ns;
    map_update(&RENAMED, &head->pid, &now, 0);
    return 0;
}

SEC("tp_btf/task_rename") int process_rename(u64 *context) {
    struct task_struct *task = (void *)context[0];
    struct rename_record record = {};

    // The name that comes with a program is part of its exec.
    if (task->pid != task->tgid || in_exec(task))
        return 0;
    begin(&record.head, RENAME, task);
    if (is_known_renamed(&record.head))
        return 0;
    read_kernel_string(record.name, sizeof(record.name), (void *)context[1]);
    announce(&record, sizeof(record));
    return 0;
}
