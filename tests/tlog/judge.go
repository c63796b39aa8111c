// judge says whether what /v1/audit serves is a transparency log, by Go's own golang.org/x/mod/sumdb and nothing of ours.
//
// usage: judge FOLDER KEY; the folder has what was served, by its path: checkpoint, tile/…, inclusion/*, consistency/*.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8 // of tiles, by c2sp.org/tlog-tiles

// served is what a proof's JSON says; hashes are in hex.
type served struct {
	Hash, Root, Checkpoint string
	Index, Size, From, To  int64
	FromRoot               string `json:"from_root"`
	ToRoot                 string `json:"to_root"`
	Proof                  []string
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: judge FOLDER KEY")
		os.Exit(2)
	}
	said, err := judge(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Println(said)
}

func judge(folder, key string) (string, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return "", err
	}
	signed, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return "", err
	}
	tree, err := opened(signed, verifier)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	hashes := tlog.TileHashReader(tree, tiles(folder))
	if err := leaves(folder, tree, hashes); err != nil {
		return "", err
	}
	included, err := each(folder, "inclusion", func(proof served) error { return inclusion(proof, verifier, hashes) })
	if err != nil {
		return "", err
	}
	consistent, err := each(folder, "consistency", func(proof served) error { return consistency(proof, tree, hashes) })
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d leaves, %d inclusion proofs, %d consistency proofs", tree.N, included, consistent), nil
}

// opened is the tree that a signed checkpoint states. Go's parser knows it by the first line of its own log.
func opened(signed []byte, verifier note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	origin, rest, _ := strings.Cut(opened.Text, "\n")
	if origin != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("it is of %q, and the key of %q", origin, verifier.Name())
	}
	return tlog.ParseTree([]byte("go.sum database tree\n" + rest))
}

// tiles reads the tiles of a folder; c2sp.org/tlog-tiles leaves the height out of Go's path.
type tiles string

func (folder tiles) Height() int { return height }

func (folder tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var read [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(folder), path))
		if err != nil {
			return nil, err
		}
		read = append(read, data)
	}
	return read, nil
}

func (folder tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// leaves checks each served entry against the leaf that the signed tree has in its place.
func leaves(folder string, tree tlog.Tree, hashes tlog.HashReader) error {
	for begin := int64(0); begin < tree.N; begin += 1 << height {
		tile := tlog.Tile{H: height, L: -1, N: begin >> height, W: int(min(tree.N-begin, 1<<height))}
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/data", height), "tile/entries", 1)
		data, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			return err
		}
		for n := begin; n < begin+int64(tile.W); n++ {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				return fmt.Errorf("%s ends before entry %d", path, n)
			}
			width := 2 + int(binary.BigEndian.Uint16(data))
			if err := isLeaf(tlog.RecordHash(data[2:width]), n, hashes); err != nil {
				return fmt.Errorf("entry %d: %w", n, err)
			}
			data = data[width:]
		}
		if len(data) > 0 {
			return fmt.Errorf("%s goes on after its last entry", path)
		}
	}
	return nil
}

func isLeaf(leaf tlog.Hash, n int64, hashes tlog.HashReader) error {
	found, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
	if err != nil {
		return err
	}
	if found[0] != leaf {
		return errors.New("it is not the leaf that the signed tree has there")
	}
	return nil
}

// inclusion checks a proof under the checkpoint it brings, and that Go makes the same one of the tiles.
func inclusion(proof served, verifier note.Verifier, hashes tlog.HashReader) error {
	tree, err := opened([]byte(proof.Checkpoint), verifier)
	if err != nil {
		return err
	}
	event, err := hex.DecodeString(proof.Hash)
	if err != nil {
		return err
	}
	path, err := decoded(append(proof.Proof, proof.Root))
	if err != nil {
		return err
	}
	if tree.N != proof.Size || tree.Hash != path[len(path)-1] {
		return errors.New("its size and root are not its checkpoint's")
	}
	path = path[:len(path)-1]
	if err := tlog.CheckRecord(path, tree.N, tree.Hash, proof.Index, tlog.RecordHash(event)); err != nil {
		return err
	}
	own, err := tlog.ProveRecord(tree.N, proof.Index, hashes)
	return same(path, own, err)
}

// consistency checks a proof between two sizes, whose roots Go finds in the tiles.
func consistency(proof served, tree tlog.Tree, hashes tlog.HashReader) error {
	if proof.From < 1 || proof.To > tree.N || proof.From > proof.To {
		return fmt.Errorf("there are no trees of %d and %d", proof.From, proof.To)
	}
	path, err := decoded(append(proof.Proof, proof.FromRoot, proof.ToRoot))
	if err != nil {
		return err
	}
	older, newer, path := path[len(path)-2], path[len(path)-1], path[:len(path)-2]
	for size, root := range map[int64]tlog.Hash{proof.From: older, proof.To: newer} {
		if found, err := tlog.TreeHash(size, hashes); err != nil || found != root {
			return fmt.Errorf("the root of %d leaves is %v, not %v (%v)", size, found, root, err)
		}
	}
	if err := tlog.CheckTree(path, proof.To, newer, proof.From, older); err != nil {
		return err
	}
	own, err := tlog.ProveTree(proof.To, proof.From, hashes)
	return same(path, own, err)
}

func same(path, own []tlog.Hash, err error) error {
	if err == nil && fmt.Sprint(path) != fmt.Sprint(own) {
		return errors.New("Go's own proof is another")
	}
	return err
}

func decoded(hashes []string) ([]tlog.Hash, error) {
	path := make([]tlog.Hash, len(hashes))
	for n, hash := range hashes {
		bytes, err := hex.DecodeString(hash)
		if err != nil || len(bytes) != tlog.HashSize {
			return nil, fmt.Errorf("%q is no hash", hash)
		}
		copy(path[n][:], bytes)
	}
	return path, nil
}

func each(folder, kind string, check func(served) error) (int, error) {
	paths, err := filepath.Glob(filepath.Join(folder, kind, "*"))
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		var proof served
		if err := json.NewDecoder(bytes.NewReader(text)).Decode(&proof); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		if err := check(proof); err != nil {
			return 0, fmt.Errorf("%s %s: %w", kind, filepath.Base(path), err)
		}
	}
	return len(paths), nil
}

func min(one, other int64) int64 {
	if one < other {
		return one
	}
	return other
}
