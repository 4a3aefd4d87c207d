// A plain Pion forwarder: what a talker sends is written, packet by packet, to a local track that all listeners share; a
// listener's offer has a section for each. ICE-lite, one UDP port, no STUN. JSON lines: {"offer": SDP, "talks": bool} in,
// {"answer": SDP} out.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"net"
	"os"
	"strconv"

	"github.com/pion/webrtc/v4"
)

type request struct {
	Offer string `json:"offer"`
	Talks bool   `json:"talks"`
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{})
	check(err)
	_ = socket.SetWriteBuffer(4 << 20)
	_ = socket.SetReadBuffer(4 << 20)
	settings := webrtc.SettingEngine{}
	settings.SetLite(true)
	settings.SetICEUDPMux(webrtc.NewICEUDPMux(nil, socket))
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	_ = settings.SetAnsweringDTLSRole(webrtc.DTLSRoleServer)
	media := &webrtc.MediaEngine{}
	opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	check(media.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: 111}, webrtc.RTPCodecTypeAudio))
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(media))
	var tracks []*webrtc.TrackLocalStaticRTP

	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var in request
		check(json.Unmarshal(line, &in))
		peer, err := api.NewPeerConnection(webrtc.Configuration{})
		check(err)
		if in.Talks {
			track, err := webrtc.NewTrackLocalStaticRTP(opus, "audio"+strconv.Itoa(len(tracks)), "bench")
			check(err)
			tracks = append(tracks, track)
			peer.OnTrack(func(from *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
				for {
					packet, _, err := from.ReadRTP()
					if err != nil {
						return
					}
					_ = track.WriteRTP(packet)
				}
			})
		} else {
			for _, track := range tracks {
				sender, err := peer.AddTrack(track)
				check(err)
				go func() {
					buffer := make([]byte, 1500)
					for {
						if _, _, err := sender.Read(buffer); err != nil {
							return
						}
					}
				}()
			}
		}
		check(peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: in.Offer}))
		answer, err := peer.CreateAnswer(nil)
		check(err)
		done := webrtc.GatheringCompletePromise(peer)
		check(peer.SetLocalDescription(answer))
		<-done
		check(out.Encode(map[string]string{"answer": peer.LocalDescription().SDP}))
	}
}
